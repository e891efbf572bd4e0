# SPDX-License-Identifier: Apache-2.0
"""Where handlers run and what keeps their past: the process that hosts environments, and the one that records them.

Decides nothing about environments: ``env`` does. This room waits, carries, writes and starts processes.
"""
