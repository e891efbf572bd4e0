# SPDX-License-Identifier: Apache-2.0
"""Whatever bytes come, from a member, a bearer of an invitation, an inviter or a file, nothing but the named errors."""

from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atoll.base.errors import CorruptError, UserError, WireError
from atoll.base.ids import PublicKey, node_id_of
from atoll.base.member import Member
from atoll.group import (
    Group,
    GroupOptions,
    GroupReceived,
    Identity,
    Invitation,
    InviteIssued,
    Joining,
    JoinOptions,
    PeerLinked,
    Roster,
    decode_invitation,
    encode_invitation,
    founding_roster,
    invite_public_key,
    join_proof,
)
from atoll.group.messages import (
    Digest,
    GroupMessage,
    Hello,
    JoinAccept,
    JoinRefused,
    JoinRequest,
    Line,
    Push,
    Refused,
    Summary,
    decode,
    encode,
)
from atoll.group.statement import (
    Admit,
    Body,
    Draft,
    Name,
    Profile,
    Remove,
    Statement,
    decode_statement,
    encode_statement,
    signed,
)

FOUNDER, PEER, JOINER = (Identity(bytes([seed]) * 64) for seed in (1, 2, 3))
INVITE = invite_public_key(bytes(16))


def record(identity: Identity, name: str) -> Member:
    return Member(identity.public_key, identity.signing_key, name)


def roster_of_two() -> Roster:
    roster = founding_roster(FOUNDER, record(FOUNDER, "a"))
    roster.add(signed(roster.group, roster.draft(roster.group, Admit(record(PEER, "b"))), FOUNDER.sign))
    return roster


ROSTER = roster_of_two()
PROOF = join_proof(JOINER, INVITE, record(JOINER, "c"))

short = st.binary(min_size=8, max_size=8)
u63 = st.integers(0, (1 << 63) - 1)
small = st.integers(0, 9)
bodies: list[Body] = [
    Admit(record(JOINER, "c")),
    Remove(FOUNDER.node, FOUNDER.signing_key, ()),
    Remove(PEER.node, PEER.signing_key, (b"h" * 32,)),
    Profile(record(PEER, "q")),
    Name("theirs"),
]


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    """Return a good statement, or a wrong one that is well signed by a member."""
    if draw(st.booleans()):
        return draw(st.sampled_from(ROSTER.statements()))
    issuer = draw(st.sampled_from([FOUNDER, PEER, JOINER]))
    previous = draw(st.sampled_from([b"", b"p" * 32, b"short"]))
    draft = Draft(issuer.signing_key, draw(st.integers(1, 600)), previous, bodies[draw(st.integers(0, 4))])
    return signed(ROSTER.group, draft, draw(st.sampled_from([issuer, PEER])).sign)


@st.composite
def messages(draw: st.DrawFn) -> GroupMessage:
    """Return a message that decodes, with whatever in it."""
    some = tuple(draw(st.lists(statements(), max_size=3)))
    lines = tuple(draw(st.lists(st.builds(Line, short, u63, short, u63, st.binary(max_size=8)), max_size=9)))
    low, high, code = draw(small), draw(small), draw(st.integers(0, 255))
    made: list[GroupMessage] = [
        Hello(low, high, draw(u63), draw(u63), draw(st.text(max_size=8))),
        Refused(code, draw(st.sampled_from([7, draw(u63)])), low, high, "0.1.0"),
        Digest(draw(u63), draw(st.binary(min_size=16, max_size=16))),
        Summary(draw(st.booleans()), draw(short), draw(short), lines),
        Push(some),
        JoinRequest(low, high, record(JOINER, "c"), PROOF, draw(small)),
        JoinAccept(ROSTER.group, ROSTER.digest(), low, high, some),
        JoinRefused(code, low, high),
    ]
    return draw(st.sampled_from(made))


def mutated(good: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(good)
    changed[at % len(changed)] ^= 1 << bit
    return bytes(changed)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Return a message, a damaged one, one with the right head and a wrong body, or just bytes."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return encode(draw(messages()))
    if kind == 1:
        return mutated(encode(draw(messages())), draw(st.integers(0, 4000)), draw(st.integers(0, 7)))
    body = draw(st.binary(max_size=1300))
    return body if kind == 2 else bytes([0x91 + len(body) % 8, draw(st.integers(32, 63))]) + body[:1000]


@given(data=payloads())
def test_decoding_is_total(data: bytes) -> None:
    for decoder in (decode, decode_statement):
        with suppress(WireError):
            decoder(data)


@given(good=statements())
def test_statements_survive_the_wire(good: Statement) -> None:
    assert decode_statement(encode_statement(good)) == good


@given(inputs=st.lists(st.tuples(st.sampled_from(["peer", "bearer", "stranger"]), payloads()), max_size=12))
@settings(max_examples=150)
def test_no_bytes_make_the_group_raise_or_differ_on_replay(inputs: list[tuple[str, bytes]]) -> None:
    options = GroupOptions(ROSTER.encode(), record(FOUNDER, "a"), 7, 1_800_000_000, "0.1.0", bytes(32))
    nodes = {"peer": bytes(PEER.node), "bearer": bytes(node_id_of(PublicKey(INVITE))), "stranger": b"s" * 10}
    group = Group.create(options, 0)
    group.start(0)
    group.handle(PeerLinked(PEER.node), 0)
    group.handle(InviteIssued(INVITE, 1_800_000_600), 0)
    copy = Group.restore(group.snapshot())
    for number, (who, data) in enumerate(inputs):
        now_ns = number * 3_000_000_000
        effects = group.handle(GroupReceived(nodes[who], data), now_ns)
        assert len(effects) <= 80
        assert list(copy.handle(GroupReceived(nodes[who], data), now_ns)) == list(effects)
        copy = Group.restore(copy.snapshot())
    assert copy.snapshot() == group.snapshot()


@given(inputs=st.lists(payloads(), max_size=12))
def test_no_bytes_make_the_joiner_raise(inputs: list[bytes]) -> None:
    options = JoinOptions(record(JOINER, "c"), PROOF, FOUNDER.public_key, FOUNDER.signing_key[:8], "here")
    machine = Joining.create(options, 0)
    machine.handle(PeerLinked(FOUNDER.node), 0)
    for data in inputs:
        assert len(machine.handle(GroupReceived(FOUNDER.node, data), 0)) <= 1


@given(at=st.integers(0, 4000), bit=st.integers(0, 7), noise=st.binary(max_size=300))
def test_a_touched_roster_file_is_corrupt(at: int, bit: int, noise: bytes) -> None:
    for data in (noise, mutated(ROSTER.encode(), at, bit)):
        with pytest.raises(CorruptError):
            Roster.decode(data)


@st.composite
def invitations(draw: st.DrawFn) -> Invitation:
    """Return any invitation that can be written."""
    hosts = draw(st.lists(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), min_size=1, max_size=4))
    endpoints = tuple((str(host), draw(st.integers(1, 65535))) for host in hosts)
    secret, inviter = draw(st.binary(min_size=16, max_size=16)), draw(st.binary(min_size=32, max_size=32))
    return Invitation(secret, inviter, endpoints, draw(st.integers(0, (1 << 32) - 1)), draw(short))


def refused_code(text: str) -> str:
    with pytest.raises(UserError) as caught:
        decode_invitation(text)
    return caught.value.code


@given(invitation=invitations())
def test_invitations_survive_the_text(invitation: Invitation) -> None:
    assert decode_invitation(encode_invitation(invitation).lower()) == invitation


@given(text=st.text(max_size=450), digits=st.text("0123456789abcdefghjkmnpqrstvwxyz-", max_size=300))
def test_no_text_is_an_invitation_by_chance(text: str, digits: str) -> None:
    assert refused_code(text) == "A201"
    assert refused_code(f"atoll1-{digits}") == "A201"


@given(invitation=invitations(), at=st.integers(0, 400), digit=st.sampled_from("0123456789abcdefghjkmnpqrstvwxyz"))
def test_a_typing_error_is_found(invitation: Invitation, at: int, digit: str) -> None:
    text = encode_invitation(invitation).lower().replace("-", "")
    place = len("atoll1") + at % (len(text) - len("atoll1"))
    changed = text[:place] + digit + text[place + 1 :]
    assume(changed != text)
    assert refused_code(changed) == "A201"
