# SPDX-License-Identifier: Apache-2.0
"""Macs and cookies, both ends."""

from random import Random

from atoll.base.units import SECOND_NS
from atoll.overlay.session.cookie import CookieGate, CookieJar
from atoll.overlay.session.protocol import COOKIE_REPLY_BYTES, COOKIE_SECRET_TIME_NS, INITIATION_BYTES, MACS_BYTES

PUBLIC = bytes(range(32))
SOURCE = b"\x7f\0\0\1\x12\x34"
MESSAGE = b"\1\0\0\0\xaa\xbb\xcc\xdd" + bytes(INITIATION_BYTES - MACS_BYTES - 8)


def ends(seed: int = 1) -> tuple[CookieGate, CookieJar]:
    return CookieGate(PUBLIC, Random(seed)), CookieJar(PUBLIC)


def test_mac1_says_that_the_sender_knows_our_key() -> None:
    gate, jar = ends()
    datagram = jar.finish(MESSAGE, 0)
    assert len(datagram) == INITIATION_BYTES
    assert gate.is_addressed_to_us(datagram)
    assert not gate.is_addressed_to_us(CookieJar(bytes(32)).finish(MESSAGE, 0))
    assert not gate.is_addressed_to_us(bytes((9,)) + datagram[1:])
    assert datagram.endswith(bytes(16))  # No cookie yet, no mac2.
    assert not gate.proves_source(datagram, SOURCE, 0)


def test_a_cookie_proves_the_source_and_only_that() -> None:
    gate, jar = ends()
    reply = gate.reply(jar.finish(MESSAGE, 0), SOURCE, 0)
    assert len(reply) == COOKIE_REPLY_BYTES
    assert reply[:8] == b"\3\0\0\0\xaa\xbb\xcc\xdd"
    assert jar.accept(reply, 0)
    datagram = jar.finish(MESSAGE, 1)
    assert gate.proves_source(datagram, SOURCE, 1)
    assert not gate.proves_source(datagram, SOURCE[:-1] + b"\0", 1)
    assert not gate.proves_source(datagram[:-1] + bytes((datagram[-1] ^ 1,)), SOURCE, 1)


def test_a_cookie_lasts_two_minutes_and_the_jar_stops_earlier() -> None:
    gate, jar = ends()
    assert jar.accept(gate.reply(jar.finish(MESSAGE, 0), SOURCE, 0), 0)
    datagram = jar.finish(MESSAGE, 1)
    assert gate.proves_source(datagram, SOURCE, COOKIE_SECRET_TIME_NS - 1)
    assert not gate.proves_source(datagram, SOURCE, COOKIE_SECRET_TIME_NS)
    assert not jar.finish(MESSAGE, COOKIE_SECRET_TIME_NS - 5 * SECOND_NS - 1).endswith(bytes(16))
    assert jar.finish(MESSAGE, COOKIE_SECRET_TIME_NS - 5 * SECOND_NS).endswith(bytes(16))


def test_only_one_authentic_reply_to_the_last_message_is_taken() -> None:
    gate, jar = ends()
    assert not jar.accept(bytes(COOKIE_REPLY_BYTES), 0)  # Nothing was sent.
    first = jar.finish(MESSAGE, 0)
    jar.finish(MESSAGE[:-1] + b"x", 0)
    assert not jar.accept(gate.reply(first, SOURCE, 0), 0)  # An answer to an older message.
    reply = gate.reply(jar.finish(MESSAGE, 0), SOURCE, 0)
    assert not jar.accept(reply[:-1] + bytes((reply[-1] ^ 1,)), 0)
    assert jar.accept(reply, 0)
    assert not jar.accept(reply, 0)
