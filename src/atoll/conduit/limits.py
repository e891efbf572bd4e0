# SPDX-License-Identifier: Apache-2.0
"""Named limits of the conduits, each with its reason. Constants of the wire stand in ``packets`` and ``stream``."""

from typing import Final

from atoll.base.units import KIB, MIB

__all__ = [
    "ACCEPT_TIMEOUT_S",
    "BUFFERED_BYTES_MAX",
    "CONNECTIONS_MAX",
    "CONNECTIONS_PER_PEER_MAX",
    "CONNECT_TIMEOUT_S",
    "DATAGRAM_BYTES_MAX",
    "DIAL_TIMEOUT_S",
    "ECHO_WAITERS_MAX",
    "FLOWS_MAX",
    "FLOWS_PER_PEER_MAX",
    "FLOW_IDLE_S",
    "FLOW_PENDING_MAX",
    "FORWARD_CONNECTIONS_MAX",
    "IDLE_TIMEOUT_S",
    "INNER_ABSENT_S",
    "INNER_ASK_S",
    "INNER_AVOID_S",
    "INNER_BACKLOG",
    "INNER_BYTES_MAX",
    "INNER_CONNECTIONS_MAX",
    "INNER_CONNECT_S",
    "INNER_OPENING_S",
    "INNER_PER_PEER_MAX",
    "INNER_SPARES_MAX",
    "INNER_SPARE_S",
    "INNER_WAIT_S",
    "KEEPALIVE_S",
    "NUDGE_PACKETS_MAX",
    "PROXY_HANDSHAKE_S",
    "PROXY_HEADER_BYTES_MAX",
    "PROXY_HEADER_LINES_MAX",
    "PROXY_LINGER_S",
    "PROXY_TARGETS_MAX",
    "PROXY_VERDICT_S",
    "PUMP_BYTES_MAX",
    "READ_BYTES_MAX",
    "STREAMS_MAX",
    "STREAM_WINDOW_BYTES",
    "TARGETS_MAX",
    "TARGET_VERDICT_S",
    "TIMER_GRAIN_S",
    "UNSENT_BYTES_MAX",
]

INNER_BYTES_MAX: Final = 1280
"""Longest inner packet: the least that every IPv6 link carries, so that no path ever needs to fragment ours."""

DATAGRAM_BYTES_MAX: Final = 1200
"""Longest QUIC datagram: QUIC's own minimum. With 48 bytes of inner headers it stays below INNER_BYTES_MAX."""

CONNECTIONS_MAX: Final = 256
"""QUIC connections of one node, both roles: 50 members, a few tags each. One costs about 100 KiB of memory."""

CONNECTIONS_PER_PEER_MAX: Final = 16
"""Connections that one member may hold open to us: two for each tag in use while one replaces the other."""

STREAMS_MAX: Final = 128
"""Streams that either side may have open on one connection; a browser opens 6 connections a host, a pool tens."""

STREAM_WINDOW_BYTES: Final = MIB
"""Bytes that a peer may send on one stream ahead of the reader. 1 MiB fills 40 Mbit/s over a round trip of 200 ms."""

BUFFERED_BYTES_MAX: Final = 64 * MIB
"""Bytes received and not yet read, all streams of all peers. At the limit the stream that brings more is reset."""

UNSENT_BYTES_MAX: Final = 128 * KIB
"""Bytes that one stream accepts before they are first sent. Then ``write`` waits, and the local program with it."""

READ_BYTES_MAX: Final = 64 * KIB
"""Bytes moved at a time between a stream and a local socket."""

PUMP_BYTES_MAX: Final = 256 * KIB
"""Bytes moved at a time between two sockets of the kernel; beyond, fewer calls no longer make up for cache misses."""

INNER_CONNECTIONS_MAX: Final = 4096
"""Connections with members over kernel TCP, each role. An opener beyond it goes by QUIC; an acceptor says so."""

INNER_PER_PEER_MAX: Final = 1024
"""Of them what one member may hold open to us: two forwards at their limit, and no more than a quarter of all."""

INNER_BACKLOG: Final = 128
"""Connections that wait to be accepted; more would wait for this process, and give up by INNER_CONNECT_S."""

INNER_WAIT_S: Final = 1.0
"""How long the first connection to a member waits to learn whether it takes kernel TCP; it goes by QUIC then."""

INNER_ASK_S: Final = 5.0
"""How long that answer may take: the member may have to make its network first, on a busy machine."""

INNER_ABSENT_S: Final = 300.0
"""How long a member is not asked again that takes no kernel TCP, or that we could not reach by it ourselves."""

INNER_AVOID_S: Final = 10.0
"""How long QUIC alone is used after a connection did not come about, or a member did not answer."""

INNER_CONNECT_S: Final = 1.0
"""How long connecting may take. By then a bad path is left; the kernel would only now send its first packet again."""

INNER_OPENING_S: Final = 60.0
"""How long a member may hold a connection before it says what it is for: INNER_SPARE_S twice."""

INNER_SPARE_S: Final = 30.0
"""How long a connection is kept that was made for the next program: pages, builds and queries come in bursts."""

INNER_SPARES_MAX: Final = 64
"""Spare connections of one node; one for each member and tag in use."""

CONNECT_TIMEOUT_S: Final = 10.0
"""From the first packet to the end of the handshake. Path healing takes one second; ten leave room for two tries."""

TIMER_GRAIN_S: Final = 0.0001
"""The shortest wait for a timer. aioquic's loss timer may be due and, by a rounding of floats, do nothing yet."""

IDLE_TIMEOUT_S: Final = 120.0
"""A connection that heard nothing for so long is dead, and all its streams. Longer than any outage we heal."""

KEEPALIVE_S: Final = 15.0
"""A connection with open streams sends at least one packet in this time, so that idle shells are not cut."""

ACCEPT_TIMEOUT_S: Final = 15.0
"""The first bytes of an incoming stream must name the service within this time."""

DIAL_TIMEOUT_S: Final = 5.0
"""Connecting to a loopback port; a full backlog is the only reason to wait at all."""

NUDGE_PACKETS_MAX: Final = 128
"""Packets resent at once after a change of path: 150 KB, a window of 6 Mbit/s at 200 ms. The rest follows by acks."""

FORWARD_CONNECTIONS_MAX: Final = 512
"""Accepted local connections of one forward, and what else a proxy holds open for them. At it a new one is reset."""

TARGETS_MAX: Final = 16
"""Members that one forward names; each is tried at most once for a connection. More: an error."""

TARGET_VERDICT_S: Final = 5.0
"""For such a member's yes or no while another is left: INNER_WAIT_S and INNER_CONNECT_S, and QUIC on a path that heals.

The last one has PROXY_VERDICT_S."""

PROXY_HANDSHAKE_S: Final = 10.0
"""From a client's connection to the end of its request: it is a program on this machine. Later: reset."""

PROXY_HEADER_BYTES_MAX: Final = 8 * KIB
"""The header of an HTTP request, empty lines included; what servers commonly take. Longer: 431."""

PROXY_HEADER_LINES_MAX: Final = 64
"""Lines of that header. A browser sends about ten. More: 431."""

PROXY_VERDICT_S: Final = 20.0
"""From a proxy's request to the member's yes or no: CONNECT_TIMEOUT_S and DIAL_TIMEOUT_S, and five to resend in."""

PROXY_LINGER_S: Final = 2.0
"""How long a refused client may go on sending, so that what we close does not discard the refusal on its way."""

PROXY_TARGETS_MAX: Final = 256
"""Members and ports that one UDP association sends to. At the limit the one idle longest is forgotten."""

FLOWS_MAX: Final = 1024
"""Remembered UDP flows of one forward, and of the serving side. At the limit the one idle longest is forgotten."""

FLOWS_PER_PEER_MAX: Final = 256
"""Flows that one member may hold at the serving side; each costs a socket."""

FLOW_IDLE_S: Final = 120.0
"""A flow without a packet in either direction for so long is forgotten (RFC 4787 asks for two minutes or more)."""

FLOW_PENDING_MAX: Final = 16
"""Datagrams that wait while a flow's socket is being opened: the first flight of any handshake."""

ECHO_WAITERS_MAX: Final = 64
"""Pings on their way at one time."""
