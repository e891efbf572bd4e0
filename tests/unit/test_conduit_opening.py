# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a connection over kernel TCP: exact, and nothing but WireError for anything else."""

import pytest

from atoll.base.errors import WireError
from atoll.conduit.opening import INNER_KEY_BYTES, OPENING_BYTES, TCP_PORT, Opening
from atoll.overlay.policy import TAGS_MAX

KEY = bytes(range(INNER_KEY_BYTES))
GOOD = Opening(8080, 2, KEY).encode()


def test_an_opening_is_these_bytes() -> None:
    assert TCP_PORT == 4432
    assert bytes.fromhex("01011f9002") + KEY == GOOD
    assert (len(GOOD), Opening.decode(GOOD)) == (OPENING_BYTES, Opening(8080, 2, KEY))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\0",
        b"\2" + GOOD[1:],  # Another version.
        GOOD[:1] + b"\2" + GOOD[2:],  # An echo is for streams.
        GOOD[:1] + b"\x09" + GOOD[2:],
        GOOD[:4] + bytes((TAGS_MAX,)) + GOOD[5:],
    ],
)
def test_what_is_no_opening_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        Opening.decode(data)
