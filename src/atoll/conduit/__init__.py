# SPDX-License-Identifier: Apache-2.0
"""Decides how unmodified programs get in and out of the overlay: streams, port forwards, echoes.

``conduit.stack.Stack`` is the whole of it for one node: give it the packets that the nic hands up, and it gives packets
back. It is not imported here, because it brings a QUIC library along that the command line must not pay for.
"""
