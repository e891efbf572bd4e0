# SPDX-License-Identifier: Apache-2.0
"""The recorder: a process of its own that appends blocks to journals and seals them. Nobody can have it change one."""
