# SPDX-License-Identifier: Apache-2.0
"""What must not happen before a roster is on disk, kept in order until then. Pure.

While a roster is being written, the node goes on: it probes, routes and relays. Only what would tell others of the
roster waits: messages about membership, and the admission of a peer that the device does not serve yet. Whatever else
concerns such a peer waits behind its admission, because the device refuses orders about peers that it does not know.
"""

from typing import Final, final

import msgspec

from atoll.base.ids import PublicKey, node_id_of
from atoll.device.nic.messages import AdmitPeer, ExpelPeer
from atoll.group.events import Sign, StoreRoster
from atoll.group.messages import GROUP_TAGS
from atoll.node.control import ControlEffect
from atoll.node.limits import WITHHELD_MESSAGES_MAX
from atoll.overlay.orders import DropArrivalLabel, DropForwardLabel, SendControl, SetArrivalLabel, SetForwardLabel

__all__ = ["Withheld"]

_TAG_OFFSET: Final = 1  # As in ``Control``: the tag is the array's first item.


@final
class Withheld:
    """Effects that wait for the disk.

    Attributes:
        dropped: Messages that found no room; members send them again or repair what they lack.
    """

    def __init__(self) -> None:
        self._effects: list[ControlEffect] = []
        self._served: dict[bytes, None] = {}  # Node ids that the device was told of.
        self._waiting: dict[bytes, None] = {}  # Node ids whose admission is among the effects.
        self._messages = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._effects)

    def note(self, effect: ControlEffect) -> None:
        """Remember whom the device serves; to be told of every effect that is performed."""
        match effect:
            case AdmitPeer(public_key):
                self._served[node_id_of(PublicKey(public_key))] = None
            case ExpelPeer(public_key):
                self._served.pop(node_id_of(PublicKey(public_key)), None)
            case _:
                pass

    def take(self, effect: ControlEffect) -> bool:
        """Keep an effect that must wait; return whether it does. Call only while a roster is being written."""
        if not self._depends(effect):
            return False
        if isinstance(effect, SendControl):
            if self._messages >= WITHHELD_MESSAGES_MAX:
                self.dropped += 1
                return True
            self._messages += 1
        elif isinstance(effect, AdmitPeer):
            self._waiting[node_id_of(PublicKey(effect.public_key))] = None
        self._effects.append(effect)
        return True

    def release(self) -> list[ControlEffect]:
        """Return everything that waited, in order, and forget it."""
        effects, self._effects = self._effects, []
        self._waiting, self._messages = {}, 0
        return effects

    def _depends(self, effect: ControlEffect) -> bool:
        match effect:
            case Sign() | StoreRoster():
                return False  # Steps on the way to the disk.
            case AdmitPeer(public_key, invited=is_invited):
                # A member that is served already gets another address; the bearer of an invitation is in no roster.
                return not is_invited and node_id_of(PublicKey(public_key)) not in self._served
            case ExpelPeer(public_key):
                return node_id_of(PublicKey(public_key)) in self._waiting
            case SendControl(payload=payload) if len(payload) > _TAG_OFFSET and payload[_TAG_OFFSET] in GROUP_TAGS:
                return True
            case DropForwardLabel(label) | DropArrivalLabel(label):
                return any(
                    isinstance(other, SetForwardLabel | SetArrivalLabel) and other.label == label
                    for other in self._effects
                )
            case _:
                return bool(self._waiting) and any(
                    isinstance(value, bytes) and value in self._waiting for value in msgspec.structs.astuple(effect)
                )
