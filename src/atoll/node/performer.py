# SPDX-License-Identifier: Apache-2.0
"""Does what the control machine decided: orders to the packet device, signatures, the roster file, notices in the log.

The only door to the machine while a node runs: ``feed`` hands it an input, records it, and performs the effects in
order. An effect that answers with an input (a signature, a stored roster) feeds it in the same turn, after the effects
before it: so the machine never sees an answer to a question that was not performed.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, final

from atoll.base.errors import StorageError
from atoll.base.ids import DIRECT
from atoll.base.ports import Clock
from atoll.core.journal import Recorder
from atoll.core.machine import Tick
from atoll.device.nic.messages import AdmitPeer, ExpelPeer, Order
from atoll.group.events import DuplicateIdentity, GroupNotice, Removed, Sign, Signed, Stored, StoreRoster
from atoll.group.identity import Identity
from atoll.host.journal_files import JournalFiles
from atoll.node.control import ControlEffect, ControlInput
from atoll.node.state import StateDirectory
from atoll.overlay.orders import RouteNotice, SetRoute

__all__ = ["Listener", "Performer"]

log: Final = logging.getLogger("atoll.node")

TURN_INPUTS_MAX: Final = 1000  # Limit. Answers within one turn; more would mean that the machine talks to itself.


class Listener(Protocol):
    """Who wants to know what happened besides the log."""

    def route_changed(self, notice: RouteNotice) -> None:
        """A route changed."""
        ...

    def copies_began(self, node: bytes) -> None:
        """The path in use is under suspicion and each packet now also takes another one."""
        ...

    def removed(self, effect: Removed) -> None:
        """The node is a member no more and must stop."""
        ...

    def duplicated(self, effect: DuplicateIdentity) -> None:
        """Another process has this node's key and goes on; this one must stop."""
        ...


@final
class Performer:
    """Performs the effects of one node's control machine.

    Args:
        recorder: The machine, recorded.
        clock: The same clock as the packet device's.
        identity: For signatures.
        state: For the roster.
        order: Takes orders for the packet device.
        name_of: Names a node for the log.
        listener: Hears of routes and of the end.
        journal: Where the recording goes; None: nowhere.
    """

    def __init__(
        self,
        recorder: Recorder[ControlInput, ControlEffect],
        *,
        clock: Clock,
        identity: Identity,
        state: StateDirectory,
        order: Callable[[Order], None],
        name_of: Callable[[bytes], str],
        listener: Listener,
        journal: JournalFiles | None,
    ) -> None:
        self._recorder, self._clock, self._identity, self._state = recorder, clock, identity, state
        self._order, self._name_of, self._listener, self._journal = order, name_of, listener, journal
        self.warning: str | None = None  # A sentence while the roster is not kept.
        self._unstored: StoreRoster | None = None  # The newest roster that the disk refused; tried again by ``keep``.

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for ``status``, while something is not kept."""
        kept = (self.warning, None if self._journal is None else self._journal.warning)
        return tuple(warning for warning in kept if warning is not None)

    @property
    def deadline_ns(self) -> int | None:
        """When ``tick`` is owed."""
        return self._recorder.deadline_ns

    def tick(self) -> None:
        """Tell the machine that its deadline has come."""
        self.feed(Tick())

    def feed(self, event: ControlInput) -> None:
        """Hand one input to the machine and do what it decides."""
        now_ns = self._clock.monotonic_ns()
        waiting: deque[ControlInput] = deque((event,))
        for _ in range(TURN_INPUTS_MAX):
            for effect in self._recorder.handle(waiting.popleft(), now_ns):
                answer = self._perform(effect)
                if answer is not None:
                    waiting.append(answer)
            if not waiting:
                break
        self._keep(now_ns)

    def begin(self, effects: list[ControlEffect]) -> None:
        """Do the machine's first effects, those of before the recording."""
        answers = [answer for effect in effects if (answer := self._perform(effect)) is not None]
        for answer in answers:
            self.feed(answer)

    def close(self) -> None:
        """Write the rest of the journal."""
        if self._journal is None:
            return
        self._keep(self._clock.monotonic_ns())
        try:
            self._journal.close()
        except StorageError as error:
            log.warning("the end of the journal is lost: %s", error)

    def keep(self) -> None:
        """Write what the journal has buffered long enough, and a roster that was refused; call once a second."""
        if self._unstored is not None and (answer := self._store(self._unstored)) is not None:
            self.feed(answer)
        self._keep(self._clock.monotonic_ns())

    def _keep(self, now_ns: int) -> None:
        if self._journal is None:
            return
        try:
            if self._journal.keep(self._recorder, now_ns):
                log.warning("the journal goes on, after a gap")
        except StorageError as error:
            log.warning("the journal is suspended, the node goes on: %s", error)

    def _perform(self, effect: ControlEffect) -> ControlInput | None:
        match effect:
            case RouteNotice():
                self._route_changed(effect)
            case Sign(request_id, payload):
                return Signed(request_id, self._identity.sign(payload))
            case StoreRoster():
                return self._store(effect)
            case Removed():
                self._listener.removed(effect)
            case DuplicateIdentity():
                self._listener.duplicated(effect)
            case GroupNotice():
                level = logging.INFO if effect.kind == "joined" else logging.WARNING
                log.log(level, "%s: %s", effect.code or effect.kind, _told(effect))
            case AdmitPeer() | ExpelPeer():
                self._order(effect)
            case SetRoute():
                self._order(effect)
                if effect.also is not None:
                    self._listener.copies_began(effect.node)
            case _:
                self._order(effect)
        return None

    def _route_changed(self, notice: RouteNotice) -> None:
        log.info(
            "route to %s tag %d: %s -> %s, %s in %.3f s: %s",
            self._name_of(notice.node),
            notice.tag,
            self._via_name(notice.before),
            self._via_name(notice.via),
            notice.cause,
            notice.took_ns / 1e9,
            notice.evidence,
        )
        self._listener.route_changed(notice)

    def _via_name(self, via: bytes) -> str:
        return "direct" if via == DIRECT else f"via {self._name_of(via)}"

    def _store(self, effect: StoreRoster) -> Stored | None:
        try:
            self._state.keep_roster(effect.roster)
        except StorageError as error:
            # The machine hears nothing, so nobody is told of a statement that a crash could take back.
            self._unstored = effect
            self.warning = f"the roster cannot be written: {error}"
            log.warning("%s", self.warning)
            return None
        self._unstored = self.warning = None
        return Stored(effect.version)


def _told(notice: GroupNotice) -> str:
    where = f" ({notice.where})" if notice.where else ""
    fix = f" fix: {notice.fix}" if notice.fix else ""
    return f"{notice.sentence}{where}{fix}"
