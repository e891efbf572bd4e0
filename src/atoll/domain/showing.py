# SPDX-License-Identifier: Apache-2.0
"""The state of an environment, as people are shown it: JSON, whatever it holds and however much that is."""

from typing import Any, Final

import msgspec

from atoll.domain.limits import SHOWN_BYTES_MAX
from atoll.env.plain_data import is_map, is_row

__all__ = ["shown"]

_encode: Final = msgspec.json.Encoder().encode


def shown(fields: dict[str, Any]) -> tuple[dict[str, msgspec.Raw], bool]:
    """Return the fields of a state as JSON, and whether some are cut, because together they are too long.

    Args:
        fields: As an environment has them: what MessagePack can say.

    Returns:
        The fields in their order; instead of one that does not fit, or that cannot be written, a text that says so.
    """
    state: dict[str, msgspec.Raw] = {}
    room, is_cut = SHOWN_BYTES_MAX, False
    for name, value in fields.items():
        try:
            content = _encode(_with_text_keys(value))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            content = _encode(f"(cannot be shown: {error})")
        if len(content) > room:
            content, is_cut = _encode(f"(cut: {len(content)} bytes)"), True
        else:
            room -= len(content)
        state[name] = msgspec.Raw(content)
    return state, is_cut


def _with_text_keys(value: Any) -> Any:
    """Return a value whose maps have text as keys; JSON knows no others."""
    if is_map(value):
        return {_text(key): _with_text_keys(one) for key, one in value.items()}
    return [_with_text_keys(one) for one in value] if is_row(value) else value


def _text(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bytes):
        return key.hex()
    if is_map(key):
        return f"{{{', '.join(f'{_text(name)}: {_text(value)}' for name, value in key.items())}}}"
    return f"[{', '.join(map(_text, key))}]" if is_row(key) else str(key)
