# SPDX-License-Identifier: Apache-2.0
"""Decides whether one component is slow, each by one published test; ``atoll.health.watch`` combines those it needs."""
