# SPDX-License-Identifier: Apache-2.0
"""Names that nobody had to choose: two random words for a group; and the rule for those that somebody did."""

from typing import Final

from atoll.base.errors import UserError
from atoll.base.member import NAME_CHARS_MAX
from atoll.base.ports import Entropy
from atoll.group.identity import name_from, name_is_good

__all__ = ["checked_name", "group_name"]

# 32 words each, so that five bits choose one: short, distinct when spoken, without a second meaning.
_COLOURS: Final = (
    "amber azure beige black blue bronze brown coral copper cream crimson ebony emerald gold green grey "
    "indigo ivory jade lemon lilac lime olive orange pearl pink plum red ruby silver teal white"
)
_BIRDS: Final = (
    "auk bittern booby coot cormorant crane curlew dove duck eagle egret falcon finch gannet godwit goose "
    "grebe gull heron ibis kite lark loon osprey owl pelican petrel plover puffin rail swan tern"
)


def group_name(entropy: Entropy) -> str:
    """Return two words such as ``blue-heron``."""
    colour, bird = entropy.token(2)
    colours, birds = _COLOURS.split(), _BIRDS.split()
    return f"{colours[colour % len(colours)]}-{birds[bird % len(birds)]}"


def checked_name(name: str, option: str = "--name") -> str:
    """Return the name if a node or a group may have it; ``option`` is where it was given.

    Raises:
        UserError: A211, with the rule.
    """
    if not name_is_good(name):
        raise UserError(
            "A211",
            f"{name!r} cannot be a name here",
            where=f"a name has 1 to {NAME_CHARS_MAX} of a-z, 0-9 and inner hyphens",
            fix=f"choose for example: {option} {name_from(name)}",
        )
    return name
