# SPDX-License-Identifier: Apache-2.0
"""Does what the control machine decided: orders to the packet device, signatures, the roster file, notices in the log.

The only door to the machine while a node runs: ``feed`` hands it an input, records it, and performs the effects in
order. An effect that answers with an input (a signature) feeds it in the same turn, after the effects before it: so the
machine never sees an answer to a question that was not performed.

A roster is written in the background, and its outcome comes back by ``stored``. Until then everything that would tell
others of it waits (``withheld.py``), and all else goes on: a slow disk must not look like a lost path. A disk that
refuses ends the waiting as well: what the machine issued itself counts only once it hears ``Stored``, and what waited
are statements of others, which they have on their own disks.
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
from atoll.health.members.bulletin import HealthNotice
from atoll.host.journal_files import JournalFiles
from atoll.node.control import ControlEffect, ControlInput
from atoll.node.limits import TURN_INPUTS_MAX
from atoll.node.withheld import Withheld
from atoll.overlay.orders import RouteNotice, SetRoute

__all__ = ["Listener", "Performer"]

log: Final = logging.getLogger("atoll.node")


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
        store: Begins to write a roster durably; tells the outcome by ``stored``, unless a newer one replaced it.
        order: Takes orders for the packet device.
        name_of: Names a node for the log.
        listener: Hears of routes and of the end.
        journal: Where the recording goes; None: nowhere.

    Attributes:
        refusal: Why the disk refused the newest roster, until it takes one; None: it did not refuse.
        unanswered: Answers within a turn that were lost at TURN_INPUTS_MAX: a bug of a machine, if there is any.
    """

    def __init__(
        self,
        recorder: Recorder[ControlInput, ControlEffect],
        *,
        clock: Clock,
        identity: Identity,
        store: Callable[[StoreRoster], None],
        order: Callable[[Order], None],
        name_of: Callable[[bytes], str],
        listener: Listener,
        journal: JournalFiles | None,
    ) -> None:
        self._recorder, self._clock, self._identity, self._write = recorder, clock, identity, store
        self._order, self._name_of, self._listener, self._journal = order, name_of, listener, journal
        self._withheld: Final = Withheld()
        self._storing: StoreRoster | None = None  # The newest roster, while it is being written.
        self._unstored: StoreRoster | None = None  # The newest one, when the disk refused it; tried again by ``keep``.
        self._dropped = 0  # Of those withheld, as last told.
        self.refusal: StorageError | None = None
        self.unanswered = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for ``status``, while something is not kept."""
        refusal = None if self.refusal is None else f"the roster cannot be written: {self.refusal}"
        kept = (refusal, None if self._journal is None else self._journal.warning)
        return tuple(warning for warning in kept if warning is not None)

    @property
    def is_storing(self) -> bool:
        """Whether a roster is being written, so that it is not known yet whether the disk takes it."""
        return self._storing is not None

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
        else:
            if not self.unanswered:
                log.error("the machine answers itself more than %d times in a turn; the rest is lost", TURN_INPUTS_MAX)
            self.unanswered += len(waiting)
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
        """Write what the journal has buffered long enough, and try a roster again that was refused; once a second."""
        if self._unstored is not None and self._storing is None:
            self._store(self._unstored)
        self._keep(self._clock.monotonic_ns())

    def stored(self, effect: StoreRoster, refused: StorageError | None) -> None:
        """Take the outcome of a write that ``store`` began.

        Args:
            effect: What was to be written.
            refused: Why the disk did not take it; None: it is there, for good.
        """
        if effect is not self._storing:  # A newer one is on its way and will say more.
            if refused is None:
                self.feed(Stored(effect.version))
            return
        self._storing = None
        if refused is None:
            self._unstored = self.refusal = None
        else:
            if self._unstored is None:
                log.warning("the roster cannot be written: %s", refused)
            self._unstored, self.refusal = effect, refused
        for waiting in self._withheld.release():
            self._perform(waiting)
        if self._withheld.dropped > self._dropped:
            self._dropped = self._withheld.dropped
            log.warning("the disk was so slow that %d messages about members are lost so far", self._dropped)
        if refused is None:
            self.feed(Stored(effect.version))

    def _keep(self, now_ns: int) -> None:
        if self._journal is None:
            return
        try:
            if self._journal.keep(self._recorder, now_ns):
                log.warning("the journal goes on, after a gap")
        except StorageError as error:
            log.warning("the journal is suspended, the node goes on: %s", error)

    def _perform(self, effect: ControlEffect) -> ControlInput | None:
        if self._storing is not None and self._withheld.take(effect):
            return None
        self._withheld.note(effect)
        match effect:
            case RouteNotice():
                self._route_changed(effect)
            case Sign(request_id, payload):
                return Signed(request_id, self._identity.sign(payload))
            case StoreRoster():
                self._store(effect)
            case Removed():
                self._listener.removed(effect)
            case DuplicateIdentity():
                self._listener.duplicated(effect)
            case GroupNotice():
                level = logging.INFO if effect.kind == "joined" else logging.WARNING
                log.log(level, "%s: %s", effect.code or effect.kind, _told(effect))
            case HealthNotice():
                self._health_changed(effect)
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

    def _health_changed(self, notice: HealthNotice) -> None:
        whose = self._name_of(notice.of) if notice.of else "this node"
        if notice.slow:
            times = f"{_ms(notice.newest_us)}, usually {_ms(notice.usual_us)}"
            said = f", as {self._name_of(notice.by)} says" if notice.by == notice.of else ""
            log.warning("%s is slow: %s %s%s", whose, notice.what, times, said)
        else:
            log.info("%s is no longer slow: %s", whose, notice.what)

    def _via_name(self, via: bytes) -> str:
        return "direct" if via == DIRECT else f"via {self._name_of(via)}"

    def _store(self, effect: StoreRoster) -> None:
        self._storing = effect  # It holds all that one before it holds, so only the newest is waited for.
        self._write(effect)


def _ms(us: int) -> str:
    return f"{us / 1000:.1f} ms"


def _told(notice: GroupNotice) -> str:
    where = f" ({notice.where})" if notice.where else ""
    fix = f" fix: {notice.fix}" if notice.fix else ""
    return f"{notice.sentence}{where}{fix}"
