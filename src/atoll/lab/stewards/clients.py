# SPDX-License-Identifier: Apache-2.0
"""Programs outside: each asks environments for numbered operations, and notes what became of each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, final

import msgspec

from atoll.base.units import MILLISECOND_NS
from atoll.env.correspondent import Correspondent, Lost, Responded
from atoll.env.messages import Carried, Receipt, Refusal, split_items
from atoll.env.tuples import TYPE_FIELD, Tuple
from atoll.lab.stewards.node import Computer, Process

__all__ = ["Client", "Operation"]

RETRY_NS: Final = 500 * MILLISECOND_NS
_encode: Final = msgspec.msgpack.Encoder().encode
_plain: Final = msgspec.msgpack.Decoder(dict[str, Any])


class Outside(Protocol):
    """What a client needs of the world."""

    now_ns: int

    def after(self, span_ns: int, action: Callable[[], object]) -> None:
        """Do this later."""
        ...

    def span_ns(self, first_ms: int, last_ms: int) -> int:
        """Draw a time."""
        ...

    def failed(self, invariant: str, detail: str) -> Exception:
        """Return the failure to raise."""
        ...


@dataclass(slots=True)
class Operation:
    """Something that a client asked for.

    Attributes:
        who: The client, as applications have it.
        number: Rises by one with each operation of a client.
        environment: Of whom.
        what: Type of the tuple.
        call: Number of the call; 0: no response is wanted.
        outcome: ``ok``, the code of a failure, or empty: none yet.
        text: Of a failure.
        answer: The response, as a dict; None: none yet.
    """

    who: int
    number: int
    environment: bytes
    what: str
    call: int = 0
    outcome: str = ""
    text: str = ""
    answer: dict[str, Any] | None = None


@final
class Client:
    """One program.

    Args:
        world: What is around it.
        index: Which.
        home: The computer that it is on.
        party: Its id.

    Attributes:
        operations: All that it asked for.
        log: What was ever sent under a number, by party.
        counts: Outcomes.
    """

    def __init__(self, world: Outside, index: int, home: Computer, party: bytes) -> None:
        self._world: Final = world
        self.index, self.home, self.party = index, home, party
        self.desk: Final = Correspondent(party)
        self.operations: list[Operation] = []
        self.log: dict[bytes, dict[int, list[bytes]]] = {}
        self._waiting: dict[int, Operation] = {}
        self._session = 0
        self._process: Process | None = None
        self._last_out_ns = self._last_in_ns = 0
        self._number = 0

    # The connection.

    def keep(self) -> None:
        """Come back when the node was away, and say again what is waited for; for ever."""
        if self._process is None:
            self.home.put(self._attach)
        else:
            self.desk.remind(self._world.now_ns)
            self._say()
        self._world.after(RETRY_NS, self.keep)

    def _attach(self, process: Process) -> None:
        if self._process is not None:
            return
        session = process.attach(self.party, self)
        if session:
            self._session, self._process = session, process
            self.desk.remind(self._world.now_ns)
            self._say()

    def lost(self) -> None:
        """The process has ended."""
        self._process = None

    def heard(self, message: Carried | Receipt | Refusal) -> None:
        """Take a message, in a moment."""
        at_ns = self._last_in_ns = max(self._last_in_ns, self._world.now_ns + self._world.span_ns(0, 2))
        process = self._process

        def turn() -> None:
            if self._process is process:
                self._take(message)

        self._world.after(at_ns - self._world.now_ns, turn)

    def _take(self, message: Carried | Receipt | Refusal) -> None:
        for news in self.desk.heard(message, self._world.now_ns):
            match news:
                case Responded(call, event):
                    self._outcome(call, event)
                case Lost(call, failure):
                    self._end(call, failure.code, failure.text)
                case _:
                    pass
        self._say()

    def _say(self) -> None:
        for message in self.desk.taken():
            if isinstance(message, Carried):
                kept = self.log.setdefault(message.target, {})
                for number, item in enumerate(split_items(message.items), message.first):
                    known = kept.setdefault(number, [])
                    if item not in known:
                        known.append(item)
            process, session = self._process, self._session
            if process is None:
                continue
            at_ns = self._last_out_ns = max(self._last_out_ns, self._world.now_ns + self._world.span_ns(0, 2))
            self._world.after(at_ns - self._world.now_ns, partial(self._send, process, session, message))

    def _send(self, process: Process, session: int, message: Carried | Receipt) -> None:
        def turn(found: Process) -> None:
            if found is process:
                process.from_client(session, message)

        self.home.put(turn)

    # What it asks for.

    def ask(self, environment: bytes, make: Callable[[int, int], Tuple], timeout_ns: int) -> Operation:
        """Ask for an operation; ``make`` gives the tuple for who asks and its number."""
        self._number += 1
        event = make(self.index, self._number)
        operation = Operation(self.index, self._number, environment, str(type(event).__struct_config__.tag))
        self.operations.append(operation)
        operation.call = self.desk.call(environment)
        self._waiting[operation.call] = operation
        self.desk.post(environment, _encode(event), operation.call)
        self.desk.flush(self._world.now_ns)
        self._say()
        self._world.after(timeout_ns, lambda: self._late(operation))
        return operation

    def _late(self, operation: Operation) -> None:
        if not operation.outcome:
            self.desk.forget(operation.call)
            self._end(operation.call, "timeout", "no response in time")

    def _outcome(self, call: int, event: msgspec.Raw) -> None:
        plain = _plain.decode(event)
        if call in self._waiting:
            self._waiting[call].answer = plain
        code = str(plain["code"]) if plain[TYPE_FIELD] == "Failure" else "ok"
        self._end(call, code, str(plain.get("text", "")))

    def _end(self, call: int, outcome: str, text: str) -> None:
        operation = self._waiting.pop(call, None)
        if operation is None or operation.outcome:
            raise self._world.failed("each call has one outcome", f"call {call} of client {self.index}: {outcome}")
        operation.outcome, operation.text = outcome, text

    @property
    def is_idle(self) -> bool:
        """Whether everything has an outcome, and all is confirmed."""
        return not self._waiting
