# SPDX-License-Identifier: Apache-2.0
"""Decides which way packets go: sessions, probes, link state, path choice, policy tables, relaying."""
