# SPDX-License-Identifier: Apache-2.0
"""Decides why it is slow from one machine to another: from everything that is known to causes with their numbers."""
