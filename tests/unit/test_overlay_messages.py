# SPDX-License-Identifier: Apache-2.0
"""Control messages against the vectors of their specification."""

import pytest

from atoll.base.errors import WireError
from atoll.overlay.mesh import DEVIATION_US_MAX
from atoll.overlay.messages import (
    CONTROL_BYTES_MAX,
    LINKS_PER_MESSAGE_MAX,
    OVERLAY_TAGS,
    Link,
    LinkState,
    decode,
    encode,
)
from tests.unit.spec_vectors import block, items, vectors

PAGE = "control.md"
VECTORS = vectors(PAGE)


def test_the_specification_has_a_vector_for_each_message() -> None:
    assert {text.split("(")[0] for text, _ in VECTORS} == {
        "Probe",
        "LinkState",
        "LabelRequest",
        "LabelGrant",
        "LabelNotice",
        "LabelRefusal",
        "Place",
    }


@pytest.mark.parametrize(("text", "data"), VECTORS)
def test_vectors_decode_to_what_they_say_and_encode_back(text: str, data: str) -> None:
    message = decode(bytes.fromhex(data))
    assert f"{type(message).__name__}({items(message)})" == text
    assert encode(message).hex() == data
    assert data[0] == "9"
    assert int(data[2:4], 16) in OVERLAY_TAGS


@pytest.mark.parametrize("data", [line for line in block(PAGE, "refused") if line])
def test_what_must_be_refused_is_a_wire_error(data: str) -> None:
    with pytest.raises(WireError):
        decode(bytes.fromhex(data))


def test_the_largest_link_state_fits() -> None:
    top = (1 << 32) - 1
    link = Link(b"\xff" * 10, top, DEVIATION_US_MAX, 10_000, 10_000, 3)
    links = (link,) * LINKS_PER_MESSAGE_MAX
    largest = LinkState((1 << 63) - 1, top, full=True, part=255, parts=255, load=255, will=2, links=links)
    assert len(encode(largest)) <= CONTROL_BYTES_MAX


def test_one_byte_too_many_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(WireError, match="too long"):
        decode(b"\x90" * (CONTROL_BYTES_MAX + 1))
