# SPDX-License-Identifier: Apache-2.0
"""Tuples: what programs say to each other and keep. Self-describing, typed, frozen.

A tuple travels as a MessagePack map whose key ``is`` names its type: a reader needs no code of the writer's to look at
a field, and may know fewer fields than the writer had. ``is`` is a keyword of Python, so no field can be called that.
(The tuples between the parts of atoll itself, ``core.Tuple``, are arrays: both sides of those have the same code.)
"""

from typing import TYPE_CHECKING, dataclass_transform

import msgspec

__all__ = ["TYPE_FIELD", "Tuple"]

TYPE_FIELD = "is"


if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
    class _Kind(msgspec.StructMeta):
        """Tells type checkers what msgspec does by itself: a class that derives from a frozen one is frozen."""

else:
    _Kind = type(msgspec.Struct)


class Tuple(msgspec.Struct, metaclass=_Kind, frozen=True, tag_field=TYPE_FIELD, tag=True):
    """Base of the tuples of programs: ``class Bid(atoll.Tuple)`` with annotated fields.

    Fields are what msgspec can write: numbers, text, bytes, booleans, None, dates, lists, tuples, dictionaries and
    other structs. Fields that a later version adds need a default; those that a reader does not know are dropped.
    """
