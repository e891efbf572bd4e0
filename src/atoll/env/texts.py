# SPDX-License-Identifier: Apache-2.0
"""Texts that programs make: whatever is in them, they can be written to a journal."""

__all__ = ["is_plain", "plain", "words_of"]


def is_plain(text: str) -> bool:
    """Tell whether a text can be encoded: one with half of a surrogate pair, as JSON may hold it, cannot."""
    return text.isascii() or text == plain(text, len(text))


def plain(text: str, chars_max: int) -> str:
    """Return a text that is short enough and can be encoded; ``?`` stands for what cannot."""
    return text[:chars_max].encode("utf-8", "replace").decode()


def words_of(error: BaseException, chars_max: int) -> str:
    """Return the type of an error and what it says, if it does not fail in saying it."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own text can raise anything, too.
        text = type(error).__name__
    return plain(text, chars_max)
