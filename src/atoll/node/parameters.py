# SPDX-License-Identifier: Apache-2.0
"""What the methods of the local API are asked for: decoded and checked in one place."""

from typing import Any, TypeVar

import msgspec

from atoll.base.errors import UserError
from atoll.overlay.policy import TAG_NAMES

__all__ = ["decoded", "tag_number"]

Params = TypeVar("Params")


def decoded(params: dict[str, Any], kind: type[Params]) -> Params:
    """Return the parameters of a call.

    Raises:
        UserError: A501, they are not those of this method.
    """
    try:
        return msgspec.convert(params, kind)
    except msgspec.ValidationError as error:
        raise UserError("A501", f"wrong parameters: {error}", fix="see docs/reference/api.md") from error


def tag_number(name: str) -> int:
    """Return the number of a policy tag.

    Raises:
        UserError: A501, there is no such tag.
    """
    if name not in TAG_NAMES:
        raise UserError("A501", f"no policy tag {name!r}", fix=f"use one of: {', '.join(TAG_NAMES)}")
    return TAG_NAMES.index(name)
