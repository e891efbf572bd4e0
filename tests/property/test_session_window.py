# SPDX-License-Identifier: Apache-2.0
"""The replay window agrees with one that remembers everything."""

from hypothesis import example, given
from hypothesis import strategies as st

from atoll.overlay.session.window import USABLE_BITS, Window

STEPS = st.one_of(
    st.integers(-USABLE_BITS - 70, 200),
    st.sampled_from([-1, 0, 1, 63, 64, 65, USABLE_BITS, USABLE_BITS + 64, 1 << 33]),
)


@given(st.lists(STEPS, max_size=200))
@example([5, -3, USABLE_BITS, 0, -USABLE_BITS + 1, -USABLE_BITS, 64, 64, -128])
def test_the_window_is_the_model(steps: list[int]) -> None:
    window, marked, gaps = Window(), dict[int, None](), 0
    highest = -1
    for step in steps:
        counter = max(0, highest + step)  # Around the newest, where the edges are.
        seen = counter in marked or (highest >= 0 and counter <= highest - USABLE_BITS)
        assert window.seen(counter) == seen
        if not seen:
            gaps += window.mark(counter)
            marked[counter] = None
            highest = max(highest, counter)
        assert (window.highest, window.received) == (highest, len(marked))
        assert gaps == highest + 1 - len(marked)
