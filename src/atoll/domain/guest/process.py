# SPDX-License-Identifier: Apache-2.0
"""The guest's side: one environment, kernel and application, in a process that can do nothing but compute.

It asks for nothing and answers what it is asked. What comes from the server it believes; the server believes nothing.
"""

import importlib
import importlib.abc
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn, final

import msgspec

from atoll.base.errors import CorruptError, LimitError, UsageError, UserError
from atoll.domain import guard
from atoll.domain.guest.clock import Clock
from atoll.domain.guest.confine import Confinement
from atoll.domain.guest.messages import (
    Answer,
    Blank,
    Content,
    Done,
    Fault,
    Handle,
    Load,
    Restore,
    Show,
    Status,
    Write,
    decode_request,
    encode_answer,
)
from atoll.domain.guest.ring import GUEST_END, Exchange, Memory
from atoll.domain.limits import GUEST_ANSWER_BYTES_MAX, GUEST_STATE_BYTES_MAX, MESSAGE_BYTES_MAX
from atoll.domain.loading import Loaded, decode_bundle, imports_of, load
from atoll.env.environment import Environment
from atoll.env.records import TEXT_CHARS_MAX, Arrived, Record
from atoll.env.texts import plain, words_of

__all__ = ["EXIT_UNCONFINED", "Guest", "Nowhere", "Refusing", "run_guest"]

_BELL: Final = 0  # The one descriptor that stays open; ``seccomp`` names it, too.
_EXIT_LOST: Final = 4
EXIT_UNCONFINED: Final = 5  # Status of one whose kernel refuses what no guest may run without.
_DONE: Final = Done.__struct_config__.tag  # A tuple of the same items is encoded as the struct, and made sooner.


def run_guest(memory_file: int, bell_file: int, confinement: Confinement, clock: Clock) -> NoReturn:
    """Be a guest until killed. For a process that was just forked."""
    try:
        os.dup2(bell_file, _BELL)
        memory = Memory(memory_file, _BELL)
        exchange = Exchange(memory, GUEST_END)
        sys.stdout = sys.stderr = Nowhere()
        sys.meta_path.append(Refusing())
        _narrow(confinement)
        guest = Guest(clock)
        answer = guest.obey(exchange.receiver.receive(MESSAGE_BYTES_MAX), confinement)
        while True:
            answer = guest.obey(exchange.ask(answer, MESSAGE_BYTES_MAX))
    except BaseException:  # noqa: BLE001 - nobody could be told; the server sees that the process is gone.
        os._exit(_EXIT_LOST)


def _narrow(confinement: Confinement) -> None:
    """Give up the first part of what it can do, or end: no code has come near it yet, so none is to blame."""
    try:
        confinement.narrow()
    except BaseException:  # noqa: BLE001 - as above.
        os._exit(EXIT_UNCONFINED)


def _close_in(confinement: Confinement, app: str) -> None:
    """Give up the rest.

    Raises:
        UserError: A613, it cannot. Whether the kernel or the code is to blame nobody can tell, as that code is in the
            same process; so nobody is advised to let it go without walls.
    """
    try:
        confinement.close_in()
    except BaseException as error:
        sentence = f"{app} is loaded, and its process cannot give up the rest of its rights"
        fix = "see what its module does while it is imported; if that is nothing odd: atoll help A613"
        raise UserError("A613", sentence, where=_text(error), fix=fix) from error


@final
class Guest:
    """What answers.

    Args:
        clock: What this process has for a clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._loaded: Loaded | None = None
        self._environment: Environment | None = None

    def obey(self, frame: bytes, confinement: Confinement | None = None) -> bytes:
        """Do what a request says; return the answer, encoded.

        Args:
            frame: The request.
            confinement: Closed in once the code is loaded.
        """
        request = decode_request(frame)
        if isinstance(request, Handle):
            return self._handled(request.record, request.now_ns)
        try:
            encoded = encode_answer(self._answer(request, confinement))
            if len(encoded) > GUEST_STATE_BYTES_MAX:
                raise UsageError(f"a state of {len(encoded)} bytes; at most {GUEST_STATE_BYTES_MAX} can be kept")
        except UserError as error:
            answer = Fault(error.code, _cut(error.sentence), 0, _cut(error.where), _cut(error.fix))
        except CorruptError as error:
            answer = Fault("corrupt", _cut(str(error)))
        except UsageError as error:
            answer = Fault("usage", _cut(str(error)))
        except BaseException as error:  # noqa: BLE001 - code that is loaded may raise anything.
            answer = Fault("corrupt", _text(error))
        else:
            return encoded
        return encode_answer(answer)

    def _handled(self, record: Record, now_ns: int) -> bytes:
        """Apply a record: the path of each event."""
        environment = self._running
        party = record.party if isinstance(record, Arrived) else b""
        self._clock.ns = max(environment.now_ns, now_ns)
        guard.begin()
        try:
            effects = environment.handle(record, now_ns)
            received = environment.received(party) if party else 0
            status = (environment.events, environment.deadline_ns, environment.first_timer, environment.is_quiescent)
            encoded = encode_answer((_DONE, status, effects, received, environment.forgotten))
            if len(encoded) > GUEST_ANSWER_BYTES_MAX:
                error = LimitError("guest_answer_bytes_max", GUEST_ANSWER_BYTES_MAX)
                encoded = encode_answer(Fault("raised", _text(error), is_known=False))
        except MemoryError:
            answer = Fault("grown", "out of memory", environment.received(party))
        except BaseException as error:  # noqa: BLE001 - whatever a stranger's handler raises is its failure.
            answer = Fault("raised", _text(error), environment.received(party))
        else:
            return encoded
        finally:
            guard.end(0)
        return encode_answer(answer)

    def _answer(self, request: Load | Blank | Restore | Write | Show, confinement: Confinement | None) -> Answer:
        match request:
            case Load(bundle):
                self._load(bundle, confinement)
                return Done(Status())
            case Blank():
                self._become(Environment.blank(self._program.program))
                return Done(self._status())
            case Restore(state):
                self._become(Environment.restore(self._program.program, state))
                return Done(self._status())
            case Write(go_on):
                environment = self._running
                return Content(environment.checkpoint() if go_on else environment.snapshot(), self._status())
            case _:
                fields = self._running.fields(request.path)
                return Content(msgspec.msgpack.encode(fields), self._status())

    def _load(self, content: bytes, confinement: Confinement | None) -> None:
        bundle = decode_bundle(content)
        loaded = load(bundle)
        for name in imports_of(bundle):
            with suppress(Exception):  # A handler that imports it may never run; if it does, it fails there.
                importlib.import_module(name)
        if confinement is not None:
            _close_in(confinement, bundle.app)
        self._loaded = loaded  # What is not closed in runs nothing, whatever it is asked.

    def _become(self, environment: Environment) -> None:
        if self._environment is not None:
            self._environment.discard()
        self._environment = environment

    def _status(self) -> Status:
        environment = self._running
        return Status(
            environment.events,
            environment.deadline_ns,
            environment.first_timer,
            environment.is_quiescent,
        )

    @property
    def _program(self) -> Loaded:
        if self._loaded is None:
            raise UsageError("no code was loaded")
        return self._loaded

    @property
    def _running(self) -> Environment:
        if self._environment is None:
            raise UsageError("no environment was begun")
        return self._environment


def _text(error: BaseException) -> str:
    """Return what the inline level says of an error that a handler raised."""
    return words_of(error, TEXT_CHARS_MAX)


def _cut(text: str) -> str:
    """Return a text that is short enough and can be encoded."""
    return plain(text, TEXT_CHARS_MAX)


@final
class Nowhere(io.StringIO):
    """Standard output of a process that has none: what handlers print is lost, as it would be on another node."""

    def write(self, text: str, /) -> int:
        """Pass over it."""
        return len(text)


@final
class Refusing(importlib.abc.MetaPathFinder):
    """Says why a module is not found that nobody has imported before."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        """Find nothing: it is asked last."""
        del path, target
        raise ModuleNotFoundError(f"no {fullname} was loaded: at the process level, import it where the module begins")
