# SPDX-License-Identifier: Apache-2.0
"""Environments whose journals are on this node and are not taken up yet: nothing is done about one before that.

To take all of them up takes as long as to read them, and those that are run meanwhile. Of the others nothing that is
said is believed, because who keeps them is in their journals; no vote is given, because it might contradict one that is
on the disk; and nobody is told that they are unknown. It is all said again.
"""

from typing import Final, final

__all__ = ["Expected"]


@final
class Expected:
    """Those of one node. State only: no more than the recorder keeps."""

    def __init__(self) -> None:
        self._names: Final[dict[bytes, str]] = {}

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._names

    def __len__(self) -> int:
        return len(self._names)

    def expect(self, identity: bytes, name: str) -> None:
        """Note that there is a journal; the name is empty where nothing is in it."""
        self._names[identity] = name

    def take(self, identity: bytes) -> bool:
        """Note that one is taken up, or cannot be; return whether that was awaited."""
        return self._names.pop(identity, None) is not None

    def named(self, name: str) -> list[bytes]:
        """Return those of a name."""
        return [identity for identity, one in self._names.items() if one == name and name]
