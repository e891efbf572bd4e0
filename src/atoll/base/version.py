# SPDX-License-Identifier: Apache-2.0
"""Which version this is. Read by the build as well."""

__all__ = ["__version__"]

__version__ = "0.1.0"
