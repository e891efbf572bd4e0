# SPDX-License-Identifier: Apache-2.0
"""Invitations as text, and what is refused before any packet is sent."""

from hashlib import blake2s

import msgspec
import pytest

from atoll.base.errors import UsageError, UserError
from atoll.base.ids import GroupId
from atoll.group import (
    Invitation,
    check_usable,
    decode_invitation,
    encode_invitation,
    invite_exchange_secret,
    invite_public_key,
)
from atoll.group.invite import TEXT_CHARS_MAX

GOOD = Invitation(
    secret=bytes(range(16)),
    inviter=bytes(range(32)),
    endpoints=(("192.0.2.7", 41641), ("2001:db8::7", 65535)),
    expires_s=1_800_000_600,
    group_prefix=b"groupid8",
)
# A vector of docs/spec/membership.md, section 7.
TEXT = (
    "atoll1-DD4X-8P37-E9QQ-AW39-CGW0-0082-0C20-A1G7-104G-M2RC-1M70-Y001-081G-8186-0W40-J2GB-1G6G-W3RG-2491-"
    "650N-2RBH-G68T-3CE1-T7GZ-082C-0002-0YHA-J1H0-046V-G000-0000-0000-0000-0007-ZZZZ-1X6S-S0"
)
EXCHANGE_SECRET = "ec1342d1dec8e3c318de420201362d3c4cc8c3aedd733c3ccf60bfc2b1df3c57"
PUBLIC_KEY = "df5ded56e1f63d16cad3ea114ed1fec0c5d05e148a83ce4ad2ca37339a876004"


def refused(text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        decode_invitation(text)
    assert caught.value.code == "A201"
    return caught.value


def test_the_text_is_stable() -> None:
    assert encode_invitation(GOOD) == TEXT
    assert decode_invitation(TEXT) == GOOD


def test_how_it_is_written_does_not_matter() -> None:
    text = encode_invitation(GOOD)
    for other in (text.upper(), text.replace("-", ""), f"  {text}\n", text.replace("-", " "), text.replace("0", "o")):
        assert decode_invitation(other) == GOOD


def test_each_single_typing_error_is_found() -> None:
    text = encode_invitation(GOOD)
    for index, digit in enumerate(text):
        if index >= len("atoll1-") and digit != "-":
            refused(text[:index] + ("Z" if digit != "Z" else "Y") + text[index + 1 :])
            refused(text[:index] + text[index + 1 :])


def test_two_digits_exchanged_are_found() -> None:
    text = encode_invitation(GOOD).replace("-", "")
    for index in range(len("atoll1"), len(text) - 1):
        if text[index] != text[index + 1]:
            refused(text[:index] + text[index + 1] + text[index] + text[index + 2 :])


@pytest.mark.parametrize(
    "text",
    ["", "atoll1-", "atoll2-7K4Q", "hello", "atoll1-U", "atoll1-7K4Q-00", "atoll1-" + "0" * 200, "ü", "0" * 10_000],
)
def test_other_texts_are_refused(text: str) -> None:
    error = refused(text)
    assert error.fix
    assert text not in error.where or not text


@pytest.mark.parametrize(
    "tail",
    [
        "00",  # No endpoint.
        "05",  # Five, and none follows.
        "0204c00002070001",  # Two, and one follows.
        "0104c00002070000",  # Port 0.
        "0104c000",  # Cut.
        "0105c00002070001",  # A family that there is not.
    ],
)
def test_addresses_that_do_not_decode(tail: str) -> None:
    head = GOOD.expires_s.to_bytes(4, "big") + GOOD.group_prefix + GOOD.secret + GOOD.inviter
    assert decode_invitation(written(head + bytes.fromhex("0104c0000207a2a9"))).endpoints == GOOD.endpoints[:1]
    refused(written(head + bytes.fromhex(tail)))


def written(body: bytes) -> str:
    """Write an invitation as the specification says, apart from the code under test."""
    data = body + blake2s(body, digest_size=4, person=b"atollchk").digest()
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "atoll1" + "".join(alphabet[int(bits[start : start + 5], 2)] for start in range(0, len(bits), 5))


def test_the_longest_invitation_fits() -> None:
    many = (("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", 65535),) * 4
    longest = Invitation(GOOD.secret, GOOD.inviter, many, GOOD.expires_s, GOOD.group_prefix)
    assert len(encode_invitation(longest)) < TEXT_CHARS_MAX
    assert decode_invitation(encode_invitation(longest)) == longest


@pytest.mark.parametrize(
    "bad",
    [
        Invitation(b"short", GOOD.inviter, GOOD.endpoints, GOOD.expires_s, GOOD.group_prefix),
        Invitation(GOOD.secret, b"short", GOOD.endpoints, GOOD.expires_s, GOOD.group_prefix),
        Invitation(GOOD.secret, GOOD.inviter, (), GOOD.expires_s, GOOD.group_prefix),
        Invitation(GOOD.secret, GOOD.inviter, GOOD.endpoints * 3, GOOD.expires_s, GOOD.group_prefix),
        Invitation(GOOD.secret, GOOD.inviter, (("example.org", 1),), GOOD.expires_s, GOOD.group_prefix),
        Invitation(GOOD.secret, GOOD.inviter, (("192.0.2.7", 1 << 16),), GOOD.expires_s, GOOD.group_prefix),
        Invitation(GOOD.secret, GOOD.inviter, GOOD.endpoints, 1 << 32, GOOD.group_prefix),
    ],
)
def test_what_cannot_be_written_is_a_bug(bad: Invitation) -> None:
    with pytest.raises(UsageError):
        encode_invitation(bad)


def test_the_secret_does_not_show() -> None:
    assert repr(GOOD) == f"Invitation(from {GOOD.endpoints!r}, expires 1800000600)"


def test_a_key_follows_from_the_secret() -> None:
    assert invite_exchange_secret(GOOD.secret).hex() == EXCHANGE_SECRET
    assert invite_public_key(GOOD.secret).hex() == PUBLIC_KEY
    assert invite_public_key(GOOD.secret) != invite_public_key(bytes(16))
    with pytest.raises(UsageError):
        invite_exchange_secret(b"short")


def check(*, now_s: int, group: GroupId | None) -> str:
    try:
        check_usable(GOOD, now_s=now_s, group=group)
    except UserError as error:
        return f"{error.code} {error.sentence}" if error.fix and error.where else "no evidence or no fix"
    return ""


def test_what_cannot_work_is_refused_at_once() -> None:
    end_s, same = GOOD.expires_s, GroupId(b"groupid8" + bytes(24))
    assert check(now_s=end_s - 1, group=None) == ""
    assert check(now_s=end_s - 1, group=same) == ""
    assert check(now_s=end_s + 299, group=None) == ""  # Our clock may be wrong; the inviter has the last word.
    assert check(now_s=end_s + 301, group=None) == "A203 this invitation expired 5 minutes ago"
    assert check(now_s=end_s + 3_600, group=None) == "A203 this invitation expired 1 hour ago"
    assert check(now_s=end_s + 200_000, group=None) == "A203 this invitation expired 2 days ago"
    assert check(now_s=end_s - 1, group=GroupId(bytes(32))) == "A202 this node is a member of another group"


def test_an_address_over_tcp_is_written_with_a_kind_of_its_own() -> None:
    both = (("192.0.2.7", 7747), ("tcp/192.0.2.7", 443), ("tcp/2001:db8::7", 443))
    written_down = encode_invitation(msgspec.structs.replace(GOOD, endpoints=both))
    assert decode_invitation(written_down).endpoints == both
