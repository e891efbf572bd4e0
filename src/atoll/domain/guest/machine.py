# SPDX-License-Identifier: Apache-2.0
"""An environment in a guest, as a ``Runner`` uses it: requests out, answers in, each of them doubted.

A guest that dies, lies or takes too long counts as a handler that failed: it is killed, and the runner makes the state
again in a new one from what is recorded. The server itself only ever waits a little (``GUEST_PATIENCE_S``).
"""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Protocol, final

import msgspec

from atoll.base.errors import CorruptError, LinkError, UsageError, UserError, WireError
from atoll.domain.guest.launch import GuestGoneError
from atoll.domain.guest.messages import (
    Answer,
    Blank,
    Content,
    Done,
    Fault,
    Handle,
    Load,
    Request,
    Restore,
    Show,
    Status,
    Write,
    decode_answer,
    encode_request,
)
from atoll.domain.guest.mirror import Mirror
from atoll.domain.limits import (
    GUEST_ANSWER_BYTES_MAX,
    GUEST_ASK_S_MAX,
    GUEST_FIRED_MAX,
    GUEST_PATIENCE_S,
    GUEST_START_S_MAX,
    GUEST_STATE_BYTES_MAX,
    HANDLER_S_MAX,
)
from atoll.domain.walls import OUTSIDE
from atoll.env.limits import LIVED_STEP_NS, LOCAL_EVENTS_MAX, NESTED_MAX
from atoll.env.places import HandlerFailedError, UnansweredError
from atoll.env.plain_data import decode_fields
from atoll.env.records import Arrived, Confirmed, Effect, Failed, Fired, Forgotten, Record

__all__ = ["GuestEnvironment", "GuestPlace", "Process"]

_FRAME_BYTES: Final = 1024  # Beside what an answer holds.
_ANSWER_BYTES_MAX: Final = GUEST_ANSWER_BYTES_MAX + _FRAME_BYTES
_HANDLE: Final = Handle.__struct_config__.tag  # A tuple of the same items is encoded as the struct, and made sooner.
EVENTS_MAX: Final = NESTED_MAX + LOCAL_EVENTS_MAX  # Limit. Of one record that is no list of items.
_LIST_16: Final = 0xDC  # MessagePack's head of a list whose length has 16 bits; below it are the short ones.
_CODES: Final = frozenset({"A601", "A603", "A604", "A605", "A613"})  # What is said of code, and of its process.
_raw_items: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Process(Protocol):
    """What is needed of a guest: ``launch.GuestProcess``."""

    bell: int
    pidfd: int
    is_untouched: bool

    def begin(self, request: bytes, bytes_max: int) -> None:
        """Ask."""
        ...

    def ask(self, request: bytes, bytes_max: int, patience_s: float) -> bytes | None:
        """Ask, and return the answer as ``answer`` does."""
        ...

    def answer(self, patience_s: float) -> bytes | None:
        """Return the answer; None: it did not come in this time."""
        ...

    def close(self) -> int:
        """Kill it and let go of everything."""
        ...


@final
class GuestPlace:
    """Makes environments of one code in guests: one at a time, the next in the same guest if that is still there.

    Args:
        fork: Makes a guest; raises ``LinkError``.
        bundle: The code, encoded.
        app: Name of the application's class.
        handler_s_max: A guest that takes longer for a record is killed.

    Attributes:
        name: The class.
        guest: The process at hand; None: there is none.
        walls: As of ``Place``.
        let_go: Called before the guest's descriptors are closed, by whoever waits for them; None: nobody does.
    """

    def __init__(
        self, fork: Callable[[], Process], bundle: bytes, app: str, handler_s_max: float = HANDLER_S_MAX
    ) -> None:
        self._fork, self._bundle, self.name = fork, bundle, app
        self._handler_s_max: Final = handler_s_max
        self.walls: Final = OUTSIDE
        self.guest: Process | None = None
        self.let_go: Callable[[], None] | None = None
        self._latest: GuestEnvironment | None = None
        self._until = 0.0
        self._remaking: Generator[None, None, GuestEnvironment] | None = None

    def begin_loading(self) -> None:
        """Make a guest, and have it load the code: what takes longest, for whoever has other things to do meanwhile.

        Raises:
            LinkError: None can be made.
        """
        self.guest = self._fork()
        self.guest.begin(encode_request(Load(self._bundle)), GUEST_ANSWER_BYTES_MAX)

    def is_loaded(self, patience_s: float = 0.0) -> bool:
        """Return whether that is done.

        Args:
            patience_s: How long to wait for it, s.

        Raises:
            UserError: The code cannot be loaded.
            LinkError: The guest did not survive it, or answers nonsense.
        """
        try:
            answer = self._at_hand().answer(patience_s)
            if answer is None:
                return False
            loaded = decode_answer(answer)
        except WireError as error:
            raise LinkError(str(error)) from error
        if isinstance(loaded, Fault):
            code = loaded.code if loaded.code in _CODES else "A603"
            raise UserError(code, loaded.text, where=loaded.where, fix=loaded.fix)
        return True

    def blank(self) -> "GuestEnvironment":
        """Return an environment before its first record, in the guest at hand.

        Raises:
            CorruptError: None can be made here.
        """
        return self._made(self._patiently(Blank()), Mirror())

    def restore(self, snapshot: bytes) -> "GuestEnvironment":
        """Return an environment as it was, in the guest at hand.

        Raises:
            CorruptError: The snapshot does not fit the code, or none can be made here.
        """
        mirror = Mirror.of(snapshot)
        return self._made(self._patiently(Restore(snapshot)), mirror)

    def remake(self, snapshot: bytes | None) -> "GuestEnvironment":
        """Return an environment as it was, in another guest if the one at hand does not survive that.

        Args:
            snapshot: Its state; None: before its first record.

        Raises:
            UnansweredError: It is not done: the code is being loaded, or the state read. To be asked again.
            CorruptError: As ``restore``.
        """
        work, self._remaking = self._remaking or self._again(snapshot), None
        try:
            next(work)
        except StopIteration as done:
            made: GuestEnvironment = done.value
            return made
        except (LinkError, UserError) as error:
            self.close()
            raise CorruptError(f"no guest: {error}") from error
        self._remaking = work
        raise UnansweredError

    @property
    def is_remaking(self) -> bool:
        """Whether ``remake`` is not done, and nothing else can be asked."""
        return self._remaking is not None

    def _again(self, snapshot: bytes | None) -> Generator[None, None, "GuestEnvironment"]:
        """Do what ``remake`` says; yield while the guest is at it."""
        mirror = Mirror() if snapshot is None else Mirror.of(snapshot)
        request = encode_request(Blank() if snapshot is None else Restore(snapshot))
        if self.guest is not None:
            self._until = time.monotonic() + GUEST_ASK_S_MAX
            try:
                return self._made((yield from self._asking(request)), mirror)
            except LinkError:
                self.close()  # It died of what came before. A new one knows nothing of that.
        self._until = time.monotonic() + GUEST_START_S_MAX
        self.begin_loading()
        patience_s = GUEST_PATIENCE_S
        while not self.is_loaded(patience_s):
            self._check_time()
            yield
            patience_s = 0.0
        return self._made((yield from self._asking(request)), mirror)

    def _asking(self, request: bytes) -> Generator[None, None, Answer]:
        guest, patience_s = self._at_hand(), GUEST_PATIENCE_S
        guest.begin(request, _ANSWER_BYTES_MAX)
        try:
            while (answer := guest.answer(patience_s)) is None:
                self._check_time()
                yield
                patience_s = 0.0
            return decode_answer(answer)
        except WireError as error:
            raise LinkError(str(error)) from error

    def _check_time(self) -> None:
        if time.monotonic() >= self._until:
            raise LinkError("a guest does not answer: what it was asked does not come to its end")

    def _made(self, answer: Answer, mirror: Mirror) -> "GuestEnvironment":
        if isinstance(answer, Fault):
            raise CorruptError(answer.text)
        self._latest = GuestEnvironment(self, mirror, answer.status)
        return self._latest

    def answered(self) -> Sequence[Effect]:
        """Return what came of the record for which ``handle`` raised ``UnansweredError``.

        Raises:
            UnansweredError: It is still not done.
            HandlerFailedError: It failed, or was ended.
        """
        assert self._latest is not None, "a record was given to an environment"
        return self._latest.went(self.late())

    @property
    def bells(self) -> tuple[int, int]:
        """Descriptors of which one becomes readable when there is an answer, and the other when the guest is dead."""
        return (-1, -1) if self.guest is None else (self.guest.bell, self.guest.pidfd)

    @property
    def left_s(self) -> float:
        """How long the guest may still run."""
        return max(0.0, self._until - time.monotonic())

    def close(self) -> None:
        """Kill the guest. Twice is harmless."""
        guest, self.guest, self._remaking = self.guest, None, None
        if self.let_go is not None:
            self.let_go()
        if guest is not None:
            guest.close()

    # What environments ask.

    def handled(self, request: bytes) -> Answer:
        """Return the answer to a request to handle a record.

        Raises:
            UnansweredError: There is none yet.
            HandlerFailedError: The guest is gone, or answers nonsense.
        """
        guest = self.guest
        if guest is None:
            raise HandlerFailedError("gone", "its process is gone")
        try:
            answer = guest.ask(request, _ANSWER_BYTES_MAX, GUEST_PATIENCE_S)
            if answer is not None:
                return decode_answer(answer)
        except (GuestGoneError, WireError) as error:
            raise self._lost(guest, error) from error
        self._until = time.monotonic() + self._handler_s_max - GUEST_PATIENCE_S
        raise UnansweredError

    def late(self) -> Answer:
        """Return the answer that there was not yet.

        Raises:
            UnansweredError: There is none yet.
            HandlerFailedError: As ``handled``, or the guest took too long.
        """
        guest = self._at_hand()
        try:
            answer = guest.answer(0.0)
            if answer is not None:
                return decode_answer(answer)
        except (GuestGoneError, WireError) as error:
            raise self._lost(guest, error) from error
        if time.monotonic() < self._until:
            raise UnansweredError
        raise self.fail(f"it ran for more than {self._handler_s_max:g} s")

    def _lost(self, guest: Process, error: Exception) -> HandlerFailedError:
        self.close()
        return HandlerFailedError("gone" if guest.is_untouched else "killed", str(error), is_known=False)

    def fail(self, text: str) -> HandlerFailedError:
        """End a guest that breaks a rule; return what to raise."""
        self.close()
        return HandlerFailedError("killed", text, is_known=False)

    def ask(self, request: Request, bytes_max: int) -> Done | Content | Fault:
        """Ask for something that no handler takes part in, and wait for it.

        Raises:
            LinkError: The guest is gone, took too long or answers nonsense.
        """
        guest = self._at_hand()
        try:
            guest.begin(encode_request(request), bytes_max + _FRAME_BYTES)
            answer = guest.answer(GUEST_ASK_S_MAX)
            if answer is not None:
                return decode_answer(answer)
        except WireError as error:
            self.close()
            raise LinkError(str(error)) from error
        except GuestGoneError:
            self.close()
            raise
        self.close()
        raise LinkError("a guest does not answer: what it was asked does not come to its end")

    def _patiently(self, request: Request) -> Done | Content | Fault:
        """Ask, and wait for it: in a guest that has loaded its code before, but for who has nobody else to serve."""
        try:
            if self.guest is None:
                self.begin_loading()
                if not self.is_loaded(GUEST_START_S_MAX):
                    raise LinkError(f"it does not load its code within {GUEST_START_S_MAX:g} s")
            return self.ask(request, GUEST_ANSWER_BYTES_MAX)
        except (LinkError, UserError) as error:
            self.close()
            raise CorruptError(f"no guest: {error}") from error

    def _at_hand(self) -> Process:
        if self.guest is None:
            raise HandlerFailedError("gone", "its process is gone")
        return self.guest


@final
class GuestEnvironment:
    """One environment in a guest, with what the server knows of it without asking. Made by a ``GuestPlace``.

    Args:
        place: Where it is.
        mirror: Its channels.
        status: What it says of itself.

    Attributes:
        now_ns: Time of the last input.
        events: Events so far.
        deadline_ns: When a ``Fired`` is owed; None: never.
        first_timer: Number of the timer that is due first; 0: none.
        is_quiescent: Whether no coroutine waits.
    """

    def __init__(self, place: GuestPlace, mirror: Mirror, status: Status) -> None:
        self._place, self._mirror = place, mirror
        self.events, self.deadline_ns = status.events, status.deadline_ns
        self.first_timer, self.is_quiescent = status.first_timer, status.is_quiescent
        self.now_ns, self.lived_ns = mirror.now_ns, mirror.lived_ns
        self._record: Record | None = None
        self._fruitless = 0  # Timers in a row that made no event.
        self.received: Final = mirror.received
        self.confirmed: Final = mirror.confirmed
        self.owes: Final = mirror.owes
        self.taken: Final = mirror.taken
        self.owed: Final = mirror.owed
        self.knows: Final = mirror.knows

    def handle(self, event: Record, now_ns: int) -> Sequence[Effect]:
        """Apply one record.

        Raises:
            UnansweredError: It takes long; ``GuestPlace.answered`` has the effects later.
            HandlerFailedError: A handler failed.
        """
        self._record = event
        self._mirror.begin()
        if now_ns > self.now_ns:  # As ``Environment.handle``.
            self.lived_ns += min(now_ns - self.now_ns, LIVED_STEP_NS)
            self.now_ns = now_ns
        return self.went(self._place.handled(encode_request((_HANDLE, now_ns, event))))

    def went(self, answer: Answer) -> Sequence[Effect]:
        """Return the effects of the record at hand, by the guest's answer to it.

        Raises:
            HandlerFailedError: A handler failed, or the answer cannot be.
        """
        record, self._record = self._record, None
        try:
            match answer:
                case Done():
                    self._went_well(record, answer)
                    return answer.effects
                case Fault(code, text, received, is_known=is_known):
                    if is_known and isinstance(record, Arrived):
                        if not received < record.first + len(_raw_items.decode(record.items)) - 1:
                            raise WireError("a failure of an item that nobody sent")
                        self._mirror.took(record.party, received, received, self.lived_ns)
                    raise HandlerFailedError("grown" if code == "grown" else "raised", text, is_known=is_known)
                case _:
                    raise WireError("an answer to something else")
        except WireError as error:
            self._mirror.take_back()
            raise self._place.fail(f"its process gave out {error}") from error

    def _went_well(self, record: Record | None, answer: Done) -> None:
        mirror, status = self._mirror, answer.status
        events = status.events - self.events
        room = EVENTS_MAX
        match record:
            case Arrived():
                count = _count(memoryview(record.items))
                if answer.received < record.first + count - 1:
                    raise WireError("items that are neither taken nor have failed")
                mirror.took(record.party, answer.received, record.first + count - 1, self.lived_ns)
                room *= count
            case Failed(party, number) if party:
                mirror.took(party, number, number, self.lived_ns)
            case Confirmed(party, upto):
                mirror.confirm(party, upto, self.lived_ns)
            case Forgotten(party, upto):
                mirror.given_up(party, upto)
            case Fired():
                self._fruitless = 0 if events else self._fruitless + 1
                if self._fruitless > GUEST_FIRED_MAX:
                    raise WireError("timers that nobody set")
            case _:
                pass
        if not 0 <= events <= room:
            raise WireError("a number of events that cannot be")
        if answer.forgotten:
            mirror.forget(answer.forgotten, self.lived_ns)
        if answer.effects:
            mirror.sent(answer.effects, self.now_ns, self.lived_ns, of_failure=isinstance(record, Failed))
        self.events, self.deadline_ns = status.events, status.deadline_ns
        self.first_timer, self.is_quiescent = status.first_timer, status.is_quiescent

    @property
    def parties(self) -> int:
        """How many parties are known."""
        return self._mirror.parties

    @property
    def room(self) -> int:
        """How many parties that are not known can be known now."""
        return self._mirror.room(self.lived_ns)

    @property
    def forgot_ns(self) -> int:
        """As of ``State``."""
        return self._mirror.forgot_ns

    def fields(self, path: str = "") -> dict[str, Any]:
        """Return the declared state of one environment of the tree, for people; empty: it is not known now."""
        if self._record is not None:
            return {}
        try:
            return decode_fields(self._content(Show(path), GUEST_ANSWER_BYTES_MAX))
        except (UsageError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}

    def snapshot(self) -> bytes:
        """Return the whole state.

        Raises:
            UsageError: A coroutine waits, a field holds what is no data, or the guest does not answer.
        """
        return self._content(Write(go_on=False), GUEST_STATE_BYTES_MAX)

    def checkpoint(self) -> bytes:
        """Return the whole state, and go on from what was written.

        Raises:
            UsageError: As ``snapshot``.
        """
        return self._content(Write(go_on=True), GUEST_STATE_BYTES_MAX)

    def discard(self) -> None:
        """Nothing: coroutines are let go of when the guest makes the next environment, or ends."""

    def _content(self, request: Request, bytes_max: int) -> bytes:
        if self._record is not None or self._place.is_remaking:
            raise UsageError("a handler runs; try again when it is done")
        try:
            answer = self._place.ask(request, bytes_max)
        except (LinkError, HandlerFailedError) as error:
            raise UsageError(f"its process does not answer: {error}") from error
        if isinstance(answer, Content):
            return answer.content
        raise UsageError(answer.text if isinstance(answer, Fault) else "its process does not write its state")


def _count(items: memoryview) -> int:
    """Return how many items are in a list of them: what its head says, since it was decoded when it came."""
    head = items[0]
    return head & 0x0F if head < _LIST_16 else int.from_bytes(items[1 : 3 if head == _LIST_16 else 5], "big")
