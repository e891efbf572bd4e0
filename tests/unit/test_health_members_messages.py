# SPDX-License-Identifier: Apache-2.0
"""Health messages against the vectors of their specification."""

import pytest

from atoll.base.errors import WireError
from atoll.health.members.messages import AILMENTS_MAX, HEALTH_TAGS, Ailment, Ailments, decode_ailments, encode_ailments
from tests.unit.spec_vectors import block, items, vectors

PAGE = "health.md"


@pytest.mark.parametrize(("text", "data"), vectors(PAGE))
def test_vectors_decode_to_what_they_say_and_encode_back(text: str, data: str) -> None:
    message = decode_ailments(bytes.fromhex(data))
    assert f"{type(message).__name__}({items(message)})" == text
    assert encode_ailments(message).hex() == data
    assert int(data[2:4], 16) in HEALTH_TAGS


@pytest.mark.parametrize("data", [line for line in block(PAGE, "refused") if line])
def test_what_must_be_refused_is_a_wire_error(data: str) -> None:
    with pytest.raises(WireError):
        decode_ailments(bytes.fromhex(data))


def test_more_than_the_limit_is_refused() -> None:
    one = Ailment(bytes(10), "cpu", False, 1, 1, 1)
    too_many = (
        bytes.fromhex("94400701dc") + (AILMENTS_MAX + 1).to_bytes(2) + encode_ailments(Ailments(7, 1, (one,)))[5:] * 17
    )
    with pytest.raises(WireError):
        decode_ailments(too_many)
    assert len(decode_ailments(encode_ailments(Ailments(7, 1, (one,) * AILMENTS_MAX))).ailments) == AILMENTS_MAX
