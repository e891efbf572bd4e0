# SPDX-License-Identifier: Apache-2.0
"""The words that every room shares: ids, units, errors, members, and the ports. Decides nothing."""
