# SPDX-License-Identifier: Apache-2.0
"""Statements: canonical bytes, signatures, and the rules that types cannot express."""

import msgspec
import pytest

from atoll.base.errors import WireError
from atoll.base.ids import GroupId
from atoll.base.member import Member, RelayWill
from atoll.group import Identity
from atoll.group.limits import ISSUER_STATEMENTS_MAX, STATEMENT_BYTES_MAX
from atoll.group.statement import (
    Admit,
    Draft,
    Profile,
    Remove,
    Statement,
    decode_statement,
    digest_of,
    encode_statement,
    member_is_sound,
    signed,
    statement_is_sound,
    verify,
)

FOUNDER = Identity(bytes(range(64)))
OTHER = Identity(bytes(range(64, 128)))
GROUP = GroupId(FOUNDER.signing_key)


def record(identity: Identity, name: str = "gpu", *hosts: str) -> Member:
    return Member(identity.public_key, identity.signing_key, name, tuple((host, 41641) for host in hosts))


def admit(counter: int = 1, previous: bytes = b"") -> Statement:
    return signed(GROUP, Draft(FOUNDER.signing_key, counter, previous, Admit(record(OTHER))), FOUNDER.sign)


def test_the_signed_bytes_are_the_documented_ones() -> None:
    draft = Draft(FOUNDER.signing_key, 1, b"", Remove(OTHER.node, OTHER.signing_key, ()))
    assert msgspec.msgpack.decode(draft.payload(GROUP)) == [
        "atoll statement 1",
        FOUNDER.signing_key,
        FOUNDER.signing_key,
        1,
        b"",
        [2, OTHER.node, OTHER.signing_key, []],
    ]


def test_a_statement_survives_the_wire_and_verifies() -> None:
    statement = decode_statement(encode_statement(admit()))
    assert statement == admit()
    assert verify(statement.issuer, statement.draft.payload(GROUP), statement.signature)


@pytest.mark.parametrize("group", [GroupId(OTHER.signing_key), GroupId(bytes(32))])
def test_a_signature_is_good_in_one_group_only(group: GroupId) -> None:
    statement = admit()
    assert not verify(statement.issuer, statement.draft.payload(group), statement.signature)


def test_keys_that_are_no_points_verify_nothing() -> None:
    assert not verify(b"\xff" * 32, b"payload", bytes(64))
    assert not verify(b"short", b"payload", bytes(64))


def test_the_digest_leaves_the_signature_out() -> None:
    statement = admit()
    resigned = msgspec.structs.replace(statement, signature=bytes(64))
    assert digest_of(GROUP, statement) == digest_of(GROUP, resigned)
    assert digest_of(GROUP, statement) != digest_of(GroupId(OTHER.signing_key), statement)


def test_the_largest_statement_fits() -> None:
    host = "fe80:aaaa:bbbb:cccc:dddd:eeee:ffff:0123"
    member = Member(
        OTHER.public_key, OTHER.signing_key, "a" * 32, ((host, 65535),) * 8, RelayWill.METERED, relay_bytes_s=1 << 40
    )
    assert member_is_sound(member)
    biggest = signed(GROUP, Draft(FOUNDER.signing_key, (1 << 53) - 1, b"p" * 32, Profile(member)), FOUNDER.sign)
    assert len(encode_statement(biggest)) <= 700 < STATEMENT_BYTES_MAX


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\xc0", b"\x95", b"\x90", encode_statement(admit())[:-1], encode_statement(admit()) + b"\x00", bytes(901)],
)
def test_other_bytes_are_a_wire_error(encoded: bytes) -> None:
    with pytest.raises(WireError):
        decode_statement(encoded)


@pytest.mark.parametrize("name", ["gpu\n", "", "-gpu", "GPU", "g p u", "a" * 33])
def test_a_name_is_matched_as_a_whole(name: str) -> None:
    assert not member_is_sound(record(OTHER, name))


@pytest.mark.parametrize("host", ["example.org", "1.2.3", "fe80::1%eth0", "127.0.0.1\n", "0x7f000001"])
def test_a_host_is_a_numeric_address(host: str) -> None:
    assert not member_is_sound(record(OTHER, "gpu", host))
    assert member_is_sound(record(OTHER, "gpu", "192.0.2.1", "2001:db8::1", "tcp/192.0.2.1"))


def test_soundness_of_each_kind() -> None:
    assert statement_is_sound(admit(1))
    assert not statement_is_sound(admit(1, b"p" * 32))  # The first has nothing before it.
    assert not statement_is_sound(admit(2))  # The second has.
    assert statement_is_sound(admit(2, b"p" * 32))
    assert not statement_is_sound(admit(ISSUER_STATEMENTS_MAX + 1, b"p" * 32))
    own = Draft(OTHER.signing_key, 9, b"", Profile(record(OTHER)))
    assert statement_is_sound(own.with_signature(bytes(64)))
    assert not statement_is_sound(msgspec.structs.replace(own, previous=b"p" * 32).with_signature(bytes(64)))
    assert not statement_is_sound(msgspec.structs.replace(own, issuer=FOUNDER.signing_key).with_signature(bytes(64)))
    remove = Draft(OTHER.signing_key, 1, b"", Remove(OTHER.node, OTHER.signing_key, ()))
    assert statement_is_sound(remove.with_signature(bytes(64)))
