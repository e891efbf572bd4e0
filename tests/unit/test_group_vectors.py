# SPDX-License-Identifier: Apache-2.0
"""The vectors of docs/spec/membership.md: whoever implements the text must get these bytes, and so must we."""

from pathlib import Path

import msgspec

from atoll.base.ids import GroupId
from atoll.base.member import Member, RelayWill
from atoll.group import (
    Identity,
    Invitation,
    decode_invitation,
    encode_invitation,
    founding_roster,
    invite_exchange_secret,
    invite_public_key,
    join_proof,
)
from atoll.group.statement import Admit, Draft, digest_of, encode_statement, signed

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec" / "membership.md"


class MemberVector(msgspec.Struct):
    name: str
    endpoints: tuple[tuple[str, int], ...]
    relay: RelayWill
    relay_bytes_s: int


class InvitationVector(msgspec.Struct):
    secret: str
    inviter: str
    endpoints: tuple[tuple[str, int], ...]
    expires_s: int
    group_prefix: str
    text: str
    exchange_secret: str
    public_key: str


class NamedVector(msgspec.Struct):
    name: str
    statement: str
    digest: str
    roster_digest: str


class Vectors(msgspec.Struct):
    identity_secret: str
    public_key: str
    signing_key: str
    node: str
    member: MemberVector
    signed_bytes: str
    signature: str
    statement: str
    digest: str
    roster_digest: str
    named: NamedVector
    invitation: InvitationVector
    join_proof: str


def vectors() -> Vectors:
    block = SPEC.read_text().split("```json\n")[1].split("```")[0]
    return msgspec.json.decode(block, type=Vectors)


def founder(expected: Vectors) -> tuple[Identity, Member]:
    identity = Identity(bytes.fromhex(expected.identity_secret))
    of = expected.member
    return identity, Member(
        identity.public_key, identity.signing_key, of.name, of.endpoints, of.relay, of.relay_bytes_s
    )


def test_identity_and_statement() -> None:
    expected = vectors()
    identity, member = founder(expected)
    assert identity.public_key.hex() == expected.public_key
    assert identity.signing_key.hex() == expected.signing_key
    assert identity.node.hex() == expected.node
    group = GroupId(identity.signing_key)
    draft = Draft(identity.signing_key, 1, b"", Admit(member))
    assert draft.payload(group).hex() == expected.signed_bytes
    statement = signed(group, draft, identity.sign)
    assert statement.signature.hex() == expected.signature
    assert encode_statement(statement).hex() == expected.statement
    assert digest_of(group, statement).hex() == expected.digest
    assert founding_roster(identity, member).digest().hex() == expected.roster_digest


def test_a_named_group() -> None:
    expected = vectors()
    roster = founding_roster(*founder(expected), expected.named.name)
    _, statement = roster.statements()
    assert encode_statement(statement).hex() == expected.named.statement
    assert digest_of(roster.group, statement).hex() == expected.named.digest
    assert roster.digest().hex() == expected.named.roster_digest
    assert roster.name == expected.named.name


def test_invitation() -> None:
    expected = vectors()
    of = expected.invitation
    invitation = Invitation(
        bytes.fromhex(of.secret),
        bytes.fromhex(of.inviter),
        of.endpoints,
        of.expires_s,
        bytes.fromhex(of.group_prefix),
    )
    assert encode_invitation(invitation) == of.text
    assert decode_invitation(of.text) == invitation
    assert invite_exchange_secret(invitation.secret).hex() == of.exchange_secret
    key = invite_public_key(invitation.secret)
    assert key.hex() == of.public_key
    identity, member = founder(expected)
    assert join_proof(identity, key, member).hex() == expected.join_proof
