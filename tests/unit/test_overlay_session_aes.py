# SPDX-License-Identifier: Apache-2.0
"""AES between nodes of ours that both want it, and never with anybody else."""

from hashlib import blake2s

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from atoll.overlay.session import Data
from atoll.overlay.session.keypair import Keypair
from atoll.overlay.session.protocol import REKEY_AFTER_TIME_NS
from tests.unit.session_world import Pair


def kinds(pair: Pair) -> tuple[int, int]:
    """Kind of a packet of each, which arrives."""
    found: list[int] = []
    for node in (pair.a, pair.b):
        datagram = pair.sealed(node, b"hello")
        got = pair.give(pair.other(node), datagram)
        assert isinstance(got, Data)
        assert got.plaintext == b"hello".ljust(16, b"\0")
        found.append(datagram[0])
    return found[0], found[1]


@pytest.mark.parametrize(
    ("ours", "aes", "expected"),
    [
        ((True, True), (True, True), (6, 6)),
        ((True, True), (True, False), (4, 4)),
        ((True, True), (False, True), (4, 4)),
        ((True, True), (False, False), (4, 4)),
        ((False, False), (True, True), (4, 4)),
        ((True, False), (True, True), (4, 4)),
        ((False, True), (True, True), (4, 4)),
    ],
)
def test_both_must_want_it(ours: tuple[bool, bool], aes: tuple[bool, bool], expected: tuple[int, int]) -> None:
    pair = Pair(ours=ours, aes=aes).connected()
    assert kinds(pair) == expected
    pair.tick(REKEY_AFTER_TIME_NS + 10**9)
    pair.sealed(pair.a)
    pair.exchange()
    assert kinds(pair) == expected, "also under the next keys"


@pytest.mark.parametrize("lost", [0, 1])
def test_one_offer_that_arrives_is_enough(lost: int) -> None:
    pair = Pair(ours=(True, True))
    pair.connect(pair.a)
    offers = 0
    while pair.a.sessions.outbox or pair.b.sessions.outbox:
        for node in (pair.a, pair.b):
            for datagram in node.take():
                if datagram[0] == 6:
                    offers += 1
                    if offers == lost + 1:
                        continue
                pair.give(pair.other(node), datagram)
    assert offers == 2
    kinds(pair)
    assert kinds(pair) == (6, 6)


def test_a_stock_peer_sees_nothing_of_it() -> None:
    pair = Pair(ours=(False, True), aes=(False, True))
    pair.connect(pair.a)
    events = pair.exchange()
    assert pair.established() == (True, True)
    assert events
    assert pair.a.dropped() == {"malformed": 1}, "the one offer, which a stock peer drops as well"


def test_the_key_is_another_one_and_the_nonce_the_counter() -> None:
    keypair = Keypair(
        local_index=1,
        remote_index=2,
        send_key=bytes([3] * 32),
        receive_key=bytes([4] * 32),
        now_ns=0,
        rekey_ns=1,
        ours=True,
    )
    keypair.sent = 7
    keypair.use_aes()
    key = blake2s(b"atoll data aes-256-gcm", key=bytes([3] * 32), digest_size=32).digest()
    for counter, sealed, plaintext in ((7, keypair.seal(b"text"), b"text" + bytes(12)), (8, keypair.offer_aes(), b"")):
        assert sealed is not None
        assert sealed[:16] == (6).to_bytes(4, "little") + (2).to_bytes(4, "little") + counter.to_bytes(8, "little")
        assert AESGCM(key).decrypt(bytes(4) + counter.to_bytes(8, "little"), sealed[16:], None) == plaintext


def test_one_counter_is_never_used_by_both_ciphers() -> None:
    """A replay window for both: what came under one kind is not taken under the other."""
    pair = Pair(ours=(True, True)).connected()
    first = pair.sealed(pair.a)
    assert pair.give(pair.b, first) is not None
    assert pair.give(pair.b, b"\x04" + first[1:]) is None
    assert pair.b.dropped() == {"replayed": 1}
    second = pair.sealed(pair.a)
    assert pair.give(pair.b, b"\x04" + second[1:]) is None
    assert pair.b.dropped() == {"replayed": 1, "forged": 1}
    assert pair.give(pair.b, second) is not None
