# SPDX-License-Identifier: Apache-2.0
"""The handshake's cryptography against other people's vectors."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from atoll.base.errors import UsageError
from atoll.overlay.session.noise import Initiator, PrivateKey, Responder, SymmetricState

DATA = Path(__file__).parent.parent / "data"
LOW_ORDER = bytes(32)

# The fundamental interactive patterns: pre-messages of initiator and responder, then the messages.
PATTERNS = {
    "NN": ("", "", "e", "e ee"),
    "NK": ("", "s", "e es", "e ee"),
    "NX": ("", "", "e", "e ee s es"),
    "XN": ("", "", "e", "e ee", "s se"),
    "XK": ("", "s", "e es", "e ee", "s se"),
    "XX": ("", "", "e", "e ee s es", "s se"),
    "KN": ("s", "", "e", "e ee se"),
    "KK": ("s", "s", "e es ss", "e ee se"),
    "KX": ("s", "", "e", "e ee se s es"),
    "IN": ("", "", "e s", "e ee se"),
    "IK": ("", "s", "e es s ss", "e ee se"),
    "IX": ("", "", "e s", "e ee se s es"),
}


def vectors(name: str) -> list[dict[str, Any]]:
    return list(json.loads(gzip.decompress((DATA / "noise" / f"{name}.json.gz").read_bytes()))["vectors"])


ALL_VECTORS = [pytest.param(vector, id=vector["protocol_name"]) for vector in vectors("cacophony") + vectors("snow")]


def wycheproof(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    suite = json.loads(gzip.decompress((DATA / "wycheproof" / f"{name}_test.json.gz").read_bytes()))
    for group in suite["testGroups"]:
        for test in group["tests"]:
            yield group, test


class Party:
    """One side of any pattern, spelled out token by token on top of our symmetric state."""

    def __init__(self, vector: dict[str, Any], side: str) -> None:
        other = "resp" if side == "init" else "init"
        self.is_initiator = side == "init"
        self.state = SymmetricState(vector["protocol_name"].encode())
        self.state.mix_hash(bytes.fromhex(vector[f"{side}_prologue"]))
        self.ours = {
            key: PrivateKey(bytes.fromhex(vector[name]))
            for key, name in (("e", f"{side}_ephemeral"), ("s", f"{side}_static"))
            if name in vector
        }
        self.theirs: dict[str, bytes] = {}
        if f"{other}_static" in vector:
            self.theirs_static = PrivateKey(bytes.fromhex(vector[f"{other}_static"])).public
        self.psks = [bytes.fromhex(psk) for psk in vector.get(f"{side}_psks", [])]
        self.has_psk, self.has_key = bool(self.psks), False

    def know(self, sender: bool, token: str) -> None:
        """Apply a pre-message."""
        if token:
            if not sender:
                self.theirs[token] = self.theirs_static
            self.state.mix_hash(self.ours[token].public if sender else self.theirs[token])

    def agree(self, token: str) -> None:
        mine, yours = (token[0], token[1]) if self.is_initiator else (token[1], token[0])
        secret = self.ours[mine].agree(self.theirs[yours])
        assert secret is not None
        self.state.mix_key(secret)
        self.has_key = True

    def write(self, tokens: list[str], payload: bytes) -> bytes:
        message = b""
        for token in tokens:
            if token == "e":
                message += self.ours["e"].public
                self.seen_ephemeral(self.ours["e"].public)
            elif token == "s":
                message += self.state.seal(self.ours["s"].public)
            elif token == "psk":
                self.state.mix_key_and_hash(self.psks.pop(0))
                self.has_key = True
            else:
                self.agree(token)
        return message + self.state.seal(payload)

    def read(self, tokens: list[str], message: bytes) -> bytes:
        for token in tokens:
            if token == "e":
                self.theirs["e"], message = message[:32], message[32:]
                self.seen_ephemeral(self.theirs["e"])
            elif token == "s":
                size = 48 if self.has_key else 32
                opened = self.state.open(message[:size])
                assert opened is not None
                self.theirs["s"], message = opened, message[size:]
            elif token == "psk":
                self.state.mix_key_and_hash(self.psks.pop(0))
                self.has_key = True
            else:
                self.agree(token)
        payload = self.state.open(message)
        assert payload is not None
        return payload

    def seen_ephemeral(self, public: bytes) -> None:
        self.state.mix_hash(public)
        if self.has_psk:
            self.state.mix_key(public)
            self.has_key = True


def pattern_of(protocol_name: str) -> tuple[str, str, list[list[str]]]:
    parsed = re.fullmatch(r"Noise_([A-Z]{2})((?:psk\d\+?)*)_.*", protocol_name)
    assert parsed is not None
    initiator, responder, *texts = PATTERNS[parsed[1]]
    messages = [text.split() for text in texts]
    for place in map(int, re.findall(r"psk(\d)", parsed[2])):
        if place == 0:
            messages[0].insert(0, "psk")
        else:
            messages[place - 1].append("psk")
    return initiator, responder, messages


@pytest.mark.parametrize("vector", ALL_VECTORS)
def test_the_symmetric_state_runs_every_fundamental_pattern(vector: dict[str, Any]) -> None:
    parties = Party(vector, "init"), Party(vector, "resp")
    initiator_known, responder_known, messages = pattern_of(vector["protocol_name"])
    for party in parties:
        party.know(party.is_initiator, initiator_known)
        party.know(not party.is_initiator, responder_known)
    for number, tokens in enumerate(messages):
        writer, reader = parties[number % 2], parties[1 - number % 2]
        entry = vector["messages"][number]
        ciphertext = writer.write(tokens, bytes.fromhex(entry["payload"]))
        assert ciphertext.hex() == entry["ciphertext"]
        assert reader.read(tokens, ciphertext).hex() == entry["payload"]
    assert parties[0].state.hash == parties[1].state.hash
    if "handshake_hash" in vector:
        assert parties[0].state.hash.hex() == vector["handshake_hash"]
    assert parties[0].state.split() == parties[1].state.split()
    check_transport(vector["messages"][len(messages) :], parties[0].state.split(), first=len(messages) % 2)


def check_transport(messages: list[dict[str, str]], keys: tuple[bytes, bytes], *, first: int) -> None:
    ciphers, counts = [ChaCha20Poly1305(key) for key in keys], [0, 0]
    for number, message in enumerate(messages):
        way = (number + first) % 2
        nonce = bytes(4) + counts[way].to_bytes(8, "little")
        counts[way] += 1
        assert ciphers[way].encrypt(nonce, bytes.fromhex(message["payload"]), None).hex() == message["ciphertext"]


def ikpsk2() -> tuple[dict[str, Any], Initiator, Responder, bytes]:
    (vector,) = [v for v in vectors("cacophony") if v["protocol_name"] == "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"]
    keys = {name: PrivateKey(bytes.fromhex(vector[name])) for name in ("init_static", "init_ephemeral", "resp_static")}
    secret = keys["init_static"].agree(keys["resp_static"].public)
    assert secret is not None
    assert vector["init_remote_static"] == keys["resp_static"].public.hex()
    prologue = bytes.fromhex(vector["init_prologue"])
    initiator = Initiator(
        static=keys["init_static"],
        static_secret=secret,
        responder=keys["resp_static"].public,
        psk=bytes.fromhex(vector["init_psks"][0]),
        ephemeral=keys["init_ephemeral"],
        prologue=prologue,
    )
    return vector, initiator, Responder(static=keys["resp_static"], prologue=prologue), secret


def test_both_sides_of_ikpsk2_repeat_the_published_vector() -> None:
    vector, initiator, responder, secret = ikpsk2()
    first, second, *transport = vector["messages"]
    message = initiator.write(bytes.fromhex(first["payload"]))
    assert message is not None
    assert message.hex() == first["ciphertext"]
    assert responder.read_static(message) == PrivateKey(bytes.fromhex(vector["init_static"])).public
    assert responder.read_payload(secret) == bytes.fromhex(first["payload"])
    answered = responder.write(
        bytes.fromhex(second["payload"]),
        ephemeral=PrivateKey(bytes.fromhex(vector["resp_ephemeral"])),
        psk=bytes.fromhex(vector["resp_psks"][0]),
    )
    assert answered is not None
    answer, responder_send, responder_receive = answered
    assert answer.hex() == second["ciphertext"]
    assert initiator.read(bytes(len(answer))) is None  # A forged answer first must spoil nothing.
    assert initiator.read(answer[:-1] + bytes((answer[-1] ^ 1,))) is None
    opened = initiator.read(answer)
    assert opened is not None
    payload, send, receive = opened
    assert payload == bytes.fromhex(second["payload"])
    assert (send, receive) == (responder_receive, responder_send)
    check_transport(transport, (send, receive), first=0)


def test_a_changed_byte_anywhere_in_the_first_message_is_noticed() -> None:
    vector, *_ = ikpsk2()
    message = bytes.fromhex(vector["messages"][0]["ciphertext"])
    for place in range(len(message)):
        if place == 31:
            continue  # The highest bit of a point does not count, and is covered by the transcript hash.
        _, _, responder, secret = ikpsk2()
        forged = message[:place] + bytes((message[place] ^ 0x55,)) + message[place + 1 :]
        static = responder.read_static(forged)
        assert static is None or responder.read_payload(secret) is None


def test_low_order_points_are_refused_at_each_place() -> None:
    vector, initiator, responder, secret = ikpsk2()
    assert initiator.write(b"") is not None
    assert initiator.read(LOW_ORDER + bytes(16)) is None
    assert responder.read_static(LOW_ORDER + bytes(80)) is None
    key = PrivateKey(bytes([1] * 32))
    weak = Initiator(static=key, static_secret=secret, responder=LOW_ORDER, psk=bytes(32), ephemeral=key)
    assert weak.write(b"") is None
    fresh = Responder(static=key)
    assert fresh.write(b"", ephemeral=key, psk=bytes(32)) is None  # Nothing was read: its keys are no points at all.
    assert vector


def test_a_message_cut_short_is_refused() -> None:
    vector, initiator, _, secret = ikpsk2()
    message = bytes.fromhex(vector["messages"][0]["ciphertext"])
    for size in range(len(message)):
        _, _, responder, _ = ikpsk2()
        assert responder.read_static(message[:size]) is None or responder.read_payload(secret) is None
    assert initiator.write(b"") is not None
    for size in range(48):
        assert initiator.read(bytes([9] * size)) is None


def test_a_private_key_has_32_bytes() -> None:
    with pytest.raises(UsageError):
        PrivateKey(bytes(31))


def test_key_agreement_passes_wycheproof() -> None:
    seen = {"agreed": 0, "refused": 0}
    for _, test in wycheproof("x25519"):
        shared = PrivateKey(bytes.fromhex(test["private"])).agree(bytes.fromhex(test["public"]))
        if "ZeroSharedSecret" in test["flags"]:
            assert shared is None, test["tcId"]
            seen["refused"] += 1
        else:
            assert shared == bytes.fromhex(test["shared"]), test["tcId"]
            seen["agreed"] += 1
    assert seen == {"agreed": 487, "refused": 31}
