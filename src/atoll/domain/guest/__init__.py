# SPDX-License-Identifier: Apache-2.0
"""The second place where handlers run: each environment in a process of its own that can do nothing but compute.

``ring`` is the memory that both sides see, ``messages`` what is said through it, ``process`` the guest's side,
``confine`` and ``seccomp`` what it gives up, ``zygote`` the process that guests are forked from, ``launch`` the
server's end of that, and ``machine`` what a ``Runner`` uses in place of an environment. Reasons: ADR 0044.
"""
