# SPDX-License-Identifier: Apache-2.0
"""Devices: each its own process with its own privileges, obeying orders and telling what it saw."""
