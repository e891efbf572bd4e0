# SPDX-License-Identifier: Apache-2.0
"""The one idea: everything that decides is a machine, and a machine never does.

Rules of a machine:

* ``handle(event, now_ns)`` is its only door; it returns effects as data, in order. ``now_ns`` never goes back.
* ``deadline_ns`` says when it next wants a ``Tick``; None means never. A late Tick is an ordinary input.
* It owns no clock, socket, disk, thread, task, log call or entropy. Randomness comes from a ``Draws`` in its state.
* All its state can be written by ``snapshot`` and read back by its kind's ``restore``: same state, same inputs, same
  effects, byte for byte, on any computer. Hence integers, never floats; ordered dicts, never sets in iteration.
* Nothing that a peer sends can make it raise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

__all__ = ["Machine", "MachineKind", "Tick", "Tuple"]


class Tuple(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """Base of typed tuples: inputs, effects and wire messages.

    Encoded as a MessagePack array whose first item is the tag: the class name, or the integer that the class line
    gives (``class Probe(Tuple, tag=1)``) where bytes on the wire count.
    """


class Tick(Tuple, frozen=True, tag="Tick"):
    """Input: the machine's deadline has come."""


In = TypeVar("In")
Out = TypeVar("Out")
InT_contra = TypeVar("InT_contra", contravariant=True)
OutT_co = TypeVar("OutT_co", covariant=True)


class Machine(Protocol[InT_contra, OutT_co]):
    """State plus handlers. See the rules in the module's docstring."""

    @property
    def deadline_ns(self) -> int | None:
        """When the driver owes a ``Tick``, ns on the same clock as ``now_ns``; None: never."""
        ...

    def handle(self, event: InT_contra, now_ns: int) -> Sequence[OutT_co]:
        """Apply one input; return the effects, in order."""
        ...

    def snapshot(self) -> bytes:
        """Return the whole state as MessagePack bytes."""
        ...


@dataclass(frozen=True, slots=True)
class MachineKind(Generic[In, Out]):
    """What a journal must know to re-run a machine that it has never seen.

    Attributes:
        name: Stable name, written into every journal, such as ``control``.
        version: Integer raised whenever the same inputs may give other effects or the snapshot's form changes.
        inputs: The closed union of input types, as msgspec decodes it.
        effects: The closed union of effect types.
        restore: Makes the machine from ``snapshot()`` bytes; raises ``CorruptError`` on bytes that do not decode.
    """

    name: str
    version: int
    inputs: Any  # A union type object; typing has no name for it.
    effects: Any
    restore: Callable[[bytes], Machine[In, Out]]
