# SPDX-License-Identifier: Apache-2.0
"""The packet device: sessions, routes, relay labels. It moves packets by its tables and decides nothing about paths."""
