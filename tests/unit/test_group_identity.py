# SPDX-License-Identifier: Apache-2.0
"""Identities and names."""

import pytest

from atoll.base.errors import UsageError
from atoll.base.member import Member
from atoll.group import Identity, founding_roster, join_proof, name_from, name_is_good
from atoll.group.statement import join_payload, verify

# RFC 7748 section 6.1 (Alice) and RFC 8032 section 7.1 (test 1).
X25519_SECRET = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c0bc0f24a8ff0c0bd2e4bf2d7a8a5")
ED25519_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
ED25519_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_keys_follow_from_the_secret() -> None:
    identity = Identity(X25519_SECRET + ED25519_SECRET)
    assert identity.signing_key == ED25519_PUBLIC
    assert identity.exchange_secret == X25519_SECRET
    assert identity.secret == X25519_SECRET + ED25519_SECRET
    assert len(identity.public_key) == 32
    assert len(identity.node) == 10


def test_the_secret_does_not_show() -> None:
    identity = Identity(X25519_SECRET + ED25519_SECRET)
    assert repr(identity) == f"Identity({identity.node.hex()})"


def test_an_identity_is_64_bytes() -> None:
    with pytest.raises(UsageError):
        Identity(bytes(63))


def test_a_founder_is_the_first_member() -> None:
    identity = Identity(bytes(range(64)))
    member = Member(identity.public_key, identity.signing_key, "fra-1")
    roster = founding_roster(identity, member)
    assert roster.group == identity.signing_key
    assert roster.members() == (member,)


def test_a_founder_may_name_its_group() -> None:
    identity = Identity(bytes(range(64)))
    member = Member(identity.public_key, identity.signing_key, "fra-1")
    assert founding_roster(identity, member).name == ""
    assert founding_roster(identity, member, "lab-7").name == "lab-7"
    with pytest.raises(UsageError):
        founding_roster(identity, member, "Lab 7")


def test_a_founder_needs_its_own_and_a_sound_record() -> None:
    identity, other = Identity(bytes(range(64))), Identity(bytes(64))
    with pytest.raises(UsageError):
        founding_roster(identity, Member(other.public_key, other.signing_key, "fra-1"))
    with pytest.raises(UsageError):
        founding_roster(identity, Member(identity.public_key, identity.signing_key, "fra-1\n"))


def test_a_join_proof_is_for_one_invitation() -> None:
    identity = Identity(bytes(range(64)))
    member = Member(identity.public_key, identity.signing_key, "gpu")
    proof = join_proof(identity, b"i" * 32, member)
    assert verify(identity.signing_key, join_payload(b"i" * 32, member), proof)
    assert not verify(identity.signing_key, join_payload(b"j" * 32, member), proof)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("fra-1", "fra-1"),
        ("GPU_Box.example.org", "gpu-box"),
        ("", "node"),
        ("---", "node"),
        ("Müllers Rechner", "m-llers-rechner"),
        ("x" * 40, "x" * 32),
        ("x" * 31 + "-y", "x" * 31),
    ],
)
def test_a_name_is_made_of_a_host_name(host: str, name: str) -> None:
    assert name_from(host) == name
    assert name_is_good(name)


def test_names_that_are_not_good() -> None:
    assert not any(name_is_good(name) for name in ("", "A", "a-", "a\n", "x" * 33))
