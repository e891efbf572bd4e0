# SPDX-License-Identifier: Apache-2.0
"""Decides what a member of a group finds of itself and of the others, what it tells them, and what it believes."""
