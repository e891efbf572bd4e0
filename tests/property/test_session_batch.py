# SPDX-License-Identifier: Apache-2.0
"""The compiled loop and Python's make the same bytes of any packet, and stop at the same datagram."""

from struct import pack

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from atoll.device.nic.segments import Bulk
from atoll.overlay.session import Burst, Run
from atoll.overlay.session.batch import batch_of
from atoll.overlay.session.keypair import Keypair
from atoll.overlay.session.session import Session
from atoll.overlay.session.sessions import _opened  # pyright: ignore[reportPrivateUsage] - the loop that is compared.

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
INDEX = 0xDEADBEEF
FIRST = 2**40 + 5

pytestmark = pytest.mark.usefixtures("compiled")


def keypair(*, is_compiled: bool, aes: bool) -> Keypair:
    made = Keypair(
        local_index=1,
        remote_index=INDEX,
        send_key=KEY,
        receive_key=KEY,
        now_ns=0,
        rekey_ns=1,
        ours=True,
        compiled=is_compiled,
    )
    if aes:
        made.use_aes()
    made.sent = FIRST
    return made


def head_of(protocol: int, flags: int, options: int, traffic: int) -> bytes:
    if protocol == 6:
        rest = pack(">HHIIBBHHH", 1, 2, 0xFFFF_FF00, 9, (5 + options) << 4, flags, 100, 0, 0) + bytes(4 * options)
    else:
        rest = pack(">HHHH", 1, 2, 0, 0)
    ip = bytes((0x60 | traffic, 1, 2, 3)) + b"\0\0" + bytes((protocol, 64)) + bytes(range(100, 132))
    return ip + rest


def sealed(made: Keypair, head: bytes, payload: bytes, size: int, room: int) -> tuple[bytes, bytes]:
    """Return the datagrams, and what became of the packet's buffer."""
    buffer = bytearray(b"before" + head + payload + b"behind")
    bulk = Bulk(buffer, 6, 6 + len(head) + len(payload), len(head), size)
    step = room + 32 + len(head) + size
    out = memoryview(bytearray(step * bulk.count))
    cut = (bulk.start, bulk.end, bulk.head_bytes, bulk.size)
    burst = Burst(memoryview(buffer), bulk.segments(), out, room, step, cut)
    if made.batch_sealer is None:
        end, counter = Session._seal_spans(made, burst)  # pyright: ignore[reportPrivateUsage]
        assert counter == made.sent + bulk.count
    else:
        end = made.batch_sealer.seal(made.kind, INDEX, made.sent, burst.source, *cut, out, room, step)
    return bytes(out[:end]), bytes(buffer)


@given(
    protocol=st.sampled_from((6, 17)),
    flags=st.integers(0, 255),
    options=st.integers(0, 10),
    traffic=st.integers(0, 15),
    payload=st.binary(min_size=1, max_size=4000),
    size=st.integers(64, 1500),
    room=st.sampled_from((0, 20)),
    aes=st.booleans(),
)
def test_the_same_packet_becomes_the_same_datagrams(
    protocol: int, flags: int, options: int, traffic: int, payload: bytes, size: int, room: int, aes: bool
) -> None:
    head = head_of(protocol, flags, options, traffic)
    size = max(size, len(head))  # A header is written over the payload before it, never over more than that.
    ours = sealed(keypair(is_compiled=True, aes=aes), head, payload, size, room)
    theirs = sealed(keypair(is_compiled=False, aes=aes), head, payload, size, room)
    assert ours == theirs


@given(plaintext=st.binary(max_size=200), aes=st.booleans(), broken=st.none() | st.integers(8, 300))
def test_one_packet_is_sealed_and_opened_the_same(plaintext: bytes, aes: bool, broken: int | None) -> None:
    ours, theirs = (keypair(is_compiled=compiled, aes=aes) for compiled in (True, False))
    datagram = ours.seal(plaintext)
    assert datagram == theirs.seal(plaintext)
    assert ours.sent == theirs.sent == FIRST + 1
    if broken is not None:
        changed = bytearray(datagram)
        changed[broken % (len(datagram) - 8) + 8] ^= 1  # The header's kind and index are for finding the key.
        datagram = bytes(changed)
    counter = int.from_bytes(datagram[8:16], "little")
    opened = ours.open(ours.kind, counter, datagram)
    assert opened == theirs.open(ours.kind, counter, datagram)
    assert opened == (plaintext + bytes(-len(plaintext) % 16) if broken is None else None)


@given(
    count=st.integers(1, 6),
    size=st.integers(0, 300),
    last=st.integers(0, 300),
    head=st.sampled_from((0, 20)),
    aes=st.booleans(),
    broken=st.integers(0, 8),
    place=st.integers(0, 10_000),
)
def test_both_open_the_same_and_stop_at_the_same_one(
    count: int, size: int, last: int, head: int, aes: bool, broken: int, place: int
) -> None:
    plain = [bytes((number,)) * (min(last, size) if number == count - 1 else size) for number in range(count)]
    made = keypair(is_compiled=True, aes=aes)
    sealer: AESGCM | ChaCha20Poly1305 = made.sealer
    datagrams = [
        bytearray(
            bytes(head)
            + pack("<IIQ", made.kind, INDEX, FIRST + number)
            + sealer.encrypt(bytes(4) + pack("<Q", FIRST + number), text, None)
        )
        for number, text in enumerate(plain)
    ]
    if broken < count:
        datagrams[broken][head + place % (len(datagrams[broken]) - head)] ^= 1
    data = memoryview(b"".join(datagrams))
    whole = len(datagrams[0])
    ends = [whole * (number + 1) for number in range(count - 1)] + [len(data)]
    found: list[tuple[int, list[bytes]]] = []
    for compiled in (True, False):
        out = memoryview(bytearray(len(data)))
        run = Run(data, whole, head, ends, out)
        keys = keypair(is_compiled=compiled, aes=aes)
        if compiled:
            batch = keys.aes_batch_opener if aes else keys.batch_opener
            assert batch is not None
            opened, joined = batch.open(keys.kind, INDEX, FIRST, data, whole, head, count, ends[-1], out)
            assert joined == 0  # No TCP.
        else:
            opened = _opened(keys, run, keys.kind, INDEX, FIRST)
        texts = [bytes(out[whole * number :][: len(plain[number])]) for number in range(opened)]
        found.append((opened, texts))
    assert found[0] == found[1]
    assert found[0] == (min(broken, count), plain[: min(broken, count)])


def segment(nibble: int, flags: int, options: int, payload: bytes, wrong: int) -> bytes:
    """A TCP segment as one of ours seals it; ``wrong``: its length says that much more."""
    head = bytearray(head_of(6, flags, options, 3))
    head[0] = nibble << 4 | 3
    head[4:6] = pack(">H", len(head) - 40 + len(payload) + wrong)
    return bytes(head) + payload


@given(
    first=st.tuples(
        st.sampled_from((5, 5, 5, 7, 6, 9)),
        st.sampled_from((0x10, 0x10, 0x90, 0x50, 0x18, 0x11, 0x02)),
        st.integers(0, 1),
    ),
    options=st.integers(0, 10),
    others=st.lists(st.sampled_from((7, 7, 7, 7, 5, 6)), max_size=8),
    payloads=st.integers(101, 160),
    last=st.integers(0, 160),
    head=st.sampled_from((0, 20)),
    aes=st.booleans(),
    broken=st.integers(0, 20),
)
def test_only_payload_is_left_of_those_that_continue_the_first_one(
    first: tuple[int, int, int],
    options: int,
    others: list[int],
    payloads: int,
    last: int,
    head: int,
    aes: bool,
    broken: int,
) -> None:
    nibble, flags, wrong = first
    made = keypair(is_compiled=True, aes=aes)
    texts = [segment(nibble, flags, options, bytes((1,)) * payloads, wrong)]
    texts += [segment(other, 0x10, options, bytes((number,)) * payloads, 0) for number, other in enumerate(others, 2)]
    if others:
        texts[-1] = texts[-1][: max(len(texts[-1]) - last, 1)]
    sealed_texts = [
        bytearray(
            bytes(head)
            + pack("<IIQ", made.kind, INDEX, FIRST + number)
            + made.sealer.encrypt(bytes(4) + pack("<Q", FIRST + number), text, None)
        )
        for number, text in enumerate(texts)
    ]
    if broken < len(texts):
        sealed_texts[broken][-1] ^= 1
    data, whole = memoryview(b"".join(sealed_texts)), len(sealed_texts[0])
    out = bytearray(len(data))
    batch = made.aes_batch_opener if aes else made.batch_opener
    assert batch is not None
    opened, joined = batch.open(made.kind, INDEX, FIRST, data, whole, head, len(texts), len(data), memoryview(out))
    assert opened == min(broken, len(texts))
    head_bytes = 60 + 4 * options
    may_continue = nibble in {5, 7} and not flags & ~0xD0 and not wrong
    alike = 0
    for text in texts[1:opened] if may_continue else ():
        if text[0] >> 4 != 7 or len(text) != len(texts[0]):
            break
        alike += 1
    assert joined == alike
    if not opened:
        return
    expected = texts[0] + b"".join(text[head_bytes:] for text in texts[1 : 1 + joined])
    assert out[: len(expected)] == expected
    for number in range(joined + 1, opened):
        assert out[number * whole :][: len(texts[number])] == texts[number]


GOOD = (4, 1, 1, bytearray(200), 0, 200, 60, 50, bytearray(800), 0, 150)


@pytest.mark.parametrize(
    ("at", "value"),
    [(4, -1), (5, 201), (6, 39), (6, 161), (6, 199), (7, 0), (7, 70_000), (8, bytearray(300)), (9, -1), (10, 141)],
)
def test_impossible_lengths_touch_nothing(at: int, value: object) -> None:
    batch = batch_of(KEY, aes=True)
    assert batch is not None
    packet = bytearray(head_of(6, 0, 0, 0) + bytes(140))
    arguments: list[object] = [*GOOD[:3], packet, *GOOD[4:]]
    assert batch.seal(*arguments) > 0
    arguments[at] = value
    arguments[3] = before = bytearray(head_of(6, 0, 0, 0) + bytes(140))
    with pytest.raises(ValueError, match=r"packet|room"):
        batch.seal(*arguments)
    assert before == head_of(6, 0, 0, 0) + bytes(140)


@pytest.mark.parametrize(
    ("at", "value"),
    [(4, 0), (4, 31), (5, -1), (5, 30), (6, 0), (6, 4), (7, 201), (7, 100), (7, 125), (8, bytearray(10))],
)
def test_impossible_places_open_nothing(at: int, value: object) -> None:
    batch = batch_of(KEY, aes=False)
    assert batch is not None
    arguments: list[object] = [4, 1, 1, bytes(200), 50, 0, 3, 150, bytearray(200)]
    assert batch.open(*arguments) == (0, 0)
    arguments[at] = value
    with pytest.raises(ValueError, match="datagrams"):
        batch.open(*arguments)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_has_32_bytes(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        batch_of(key, aes=True)


def test_sessions_use_it_unless_told_not_to() -> None:
    assert keypair(is_compiled=True, aes=True).batch_sealer is not None
    assert keypair(is_compiled=False, aes=True).batch_sealer is None
    assert keypair(is_compiled=True, aes=False).aes_batch_opener is not None
    assert OTHER != KEY
