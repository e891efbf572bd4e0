# SPDX-License-Identifier: Apache-2.0
"""All that one recorder keeps, and what it answers: no sockets here, so that it can be asked in a test as in a process.

``serve`` takes all requests that are there. Blocks are staged in their journals and written together, one write and one
sync for each journal that got any; whatever else is asked for sees what was asked before it as done. Each request gets
one answer, and a failure is an answer too.

    <state>/envs/<id>/      ``journal.py``          <state>/code/<SHA-256>.atc      archives of code
    <state>/heads/          ``heads.py``            <state>/ended/<id>-K            what has ended
"""

from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Final, Generic, TypeVar, final

from atoll.base.errors import StorageError
from atoll.domain.limits import (
    BATCH_BYTES_MAX,
    CODE_FILES_MAX,
    ENDED_MAX,
    RECORDED_MAX,
    SEGMENT_BYTES_MAX,
    SEGMENTS_OPEN_MAX,
)
from atoll.domain.recorder.disk import refusal_of, sync_directory
from atoll.domain.recorder.heads import HeadFiles
from atoll.domain.recorder.journal import BlockJournal, create_journal
from atoll.domain.recorder.key import RecorderKey
from atoll.domain.recorder.messages import (
    Answer,
    Append,
    Appended,
    Blocks,
    Certify,
    Code,
    Content,
    Create,
    Cut,
    Done,
    Forget,
    Keep,
    KeepCode,
    KeepHead,
    KeepSnapshot,
    Kept,
    List,
    Listed,
    Promise,
    Read,
    ReadCode,
    ReadSnapshot,
    Refused,
    RefusedError,
    Request,
    Restart,
    Retain,
    Retained,
    Snapshot,
)
from atoll.env.chain import ID_BYTES, Sealed, Sealer
from atoll.host.files import make_private_directory, write_atomic

__all__ = ["Store"]

_BLOCK_FRAME_BYTES: Final = 1024  # More than a frame has beside its body, its sealer included.

Asker = TypeVar("Asker")


@final
class Store(Generic[Asker]):
    """What is kept under one state directory. The caller holds it: nobody else writes there.

    Args:
        state: The node's state directory.
        key: The recorder's.
        segment_bytes_max: Size of a segment file, bytes.
        on_checked: Called after each journal that was checked, with how many there were.

    Raises:
        StorageError: The directories cannot be made or read. What is wrong with one environment is said by ``List``.
    """

    def __init__(
        self,
        state: Path,
        key: RecorderKey,
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        on_checked: Callable[[int], None] | None = None,
    ) -> None:
        self._key: Final = key
        self._segment_bytes_max: Final = segment_bytes_max
        self._envs, self._code, self._ended = state / "envs", state / "code", state / "ended"
        for directory in (self._envs, self._code, self._ended):
            make_private_directory(directory)
        self._heads: Final = HeadFiles(state / "heads")
        self._journals: Final = self._load(on_checked)
        self._over: Final = self._load_ended()
        self._open: Final[dict[bytes, BlockJournal]] = {}  # Those that hold a descriptor, the one used last at the end.
        self._staged: Final[dict[bytes, list[tuple[Asker, Appended | Kept | Refused]]]] = {}
        self._answers: list[tuple[Asker, Answer]] = []
        self._ways: Final[dict[type[Request], Callable[..., Answer]]] = {
            List: self._list,
            Create: self._create,
            Cut: self._cut,
            Promise: self._promise,
            Restart: self._restart,
            KeepSnapshot: self._keep_snapshot,
            ReadSnapshot: self._read_snapshot,
            Read: self._read,
            KeepCode: self._keep_code,
            ReadCode: self._read_code,
            KeepHead: self._keep_head,
            Forget: self._forget,
            Retain: self._retain,
            Certify: self._certify,
        }

    def serve(self, requests: Iterable[tuple[Asker, Request]]) -> list[tuple[Asker, Answer]]:
        """Do what is asked, in this order; return the answer to each, with who asked.

        Answers of one asker for one journal come in the order of its requests; others may overtake them.
        """
        self._answers = []
        for asker, request in requests:
            if isinstance(request, Append | Keep):
                self._stage(asker, request)
                continue
            self._commit()
            try:
                answer = self._ways[type(request)](request)
            except RefusedError as error:
                answer = Refused.of(request.id, error)
            self._answers.append((asker, answer))
        self._commit()
        answers, self._answers = self._answers, []
        return answers

    def close(self) -> None:
        """Give all descriptors back."""
        for journal in self._open.values():
            journal.release()
        self._open.clear()

    def _stage(self, asker: Asker, request: Append | Keep) -> None:
        environment = request.environment
        try:
            journal = self._journal(environment)
            if journal.staged_bytes + len(request.block.body) + _BLOCK_FRAME_BYTES > BATCH_BYTES_MAX:
                self._commit_one(environment)
            answer: Appended | Kept
            if isinstance(request, Append):
                answer = Appended(request.id, request.block.number, *journal.append(request.block))
            else:
                journal.keep(request.sealer, Sealed(request.block, request.seal))
                answer = Kept(request.id, request.block.number)
        except RefusedError as error:  # After the answers to what was asked before it.
            self._staged.get(environment, self._answers).append((asker, Refused.of(request.id, error)))
            return
        self._staged.setdefault(environment, []).append((asker, answer))

    def _commit(self) -> None:
        for environment in tuple(self._staged):
            self._commit_one(environment)

    def _commit_one(self, environment: bytes) -> None:
        """Write what is staged of one journal, and answer to all of it."""
        waiting = self._staged.pop(environment, [])
        journal = self._journals[environment]
        try:
            journal.commit()
        except RefusedError as error:
            for asker, answer in waiting:
                refused = answer if isinstance(answer, Refused) else Refused.of(answer.id, error)
                self._answers.append((asker, refused))
            return
        self._answers += waiting
        self._open.pop(environment, None)
        self._open[environment] = journal
        if len(self._open) > SEGMENTS_OPEN_MAX:
            self._open.pop(next(iter(self._open))).release()

    def _journal(self, environment: bytes) -> BlockJournal:
        journal = self._journals.get(environment)
        if journal is None:
            raise RefusedError(Code.UNKNOWN, f"there is no environment {environment.hex()}")
        if journal.damage:
            raise RefusedError(Code.CORRUPT, journal.damage)
        return journal

    def _load(self, on_checked: Callable[[int], None] | None) -> dict[bytes, BlockJournal]:
        journals: dict[bytes, BlockJournal] = {}
        try:
            for directory in sorted(self._envs.iterdir()):
                if directory.name.startswith("."):
                    rmtree(directory)  # It was never whole, and nobody was told that it is there.
                elif _is_id(directory.name):
                    journals[bytes.fromhex(directory.name)] = self._opened(directory)
                    if on_checked is not None:
                        on_checked(len(journals))
        except OSError as error:
            raise StorageError(f"{self._envs}: {error.strerror or error}") from error
        return journals

    def _load_ended(self) -> dict[bytes, None]:
        try:
            found = [one for one in self._ended.iterdir() if _is_id(one.name.partition("-")[0])]
            found.sort(key=lambda one: one.stat().st_mtime_ns)
        except OSError as error:
            raise StorageError(f"{self._ended}: {error.strerror or error}") from error
        return dict.fromkeys(bytes.fromhex(one.name.partition("-")[0]) for one in found[-ENDED_MAX:])

    def _opened(self, directory: Path) -> BlockJournal:
        return BlockJournal(directory, self._key, segment_bytes_max=self._segment_bytes_max)

    def _certify(self, request: Certify) -> Answer:
        sealer = Sealer(request.node, self._key.public, request.signing_key, request.certificate)
        try:
            self._key.certify(sealer)
        except StorageError as error:
            raise refusal_of(error, self._envs.parent) from error
        return Done(request.id)

    def _list(self, request: List) -> Answer:
        return Listed(request.id, tuple(journal.recorded() for journal in self._journals.values()), tuple(self._over))

    def _create(self, request: Create) -> Answer:
        environment = request.environment
        if environment in self._journals:
            raise RefusedError(Code.EXISTS, f"there is an environment {environment.hex()}")
        if environment in self._over:
            raise RefusedError(Code.EXISTS, f"the environment {environment.hex()} has ended")
        if len(self._journals) >= RECORDED_MAX:
            raise RefusedError(Code.LIMIT, f"RECORDED_MAX is {RECORDED_MAX}")
        directory = self._envs / environment.hex()
        create_journal(directory, self._key, request.name, request.at)
        self._journals[environment] = self._opened(directory)
        return Done(request.id)

    def _cut(self, request: Cut) -> Answer:
        self._journal(request.environment).cut(request.number)
        return Done(request.id)

    def _promise(self, request: Promise) -> Answer:
        self._journal(request.environment).promise(request.epoch, request.node)
        return Done(request.id)

    def _restart(self, request: Restart) -> Answer:
        self._journal(request.environment).restart(request)
        return Done(request.id)

    def _keep_snapshot(self, request: KeepSnapshot) -> Answer:
        self._journal(request.environment).keep_snapshot(request.number, request.content)
        return Done(request.id)

    def _read_snapshot(self, request: ReadSnapshot) -> Answer:
        at, signed = self._journal(request.environment).snapshot(request.number, upto=request.upto)
        return Snapshot(
            request.id, at.number, at.head, signed.content, at.epoch, at.events, signed.sealer, signed.signature
        )

    def _read(self, request: Read) -> Answer:
        return Blocks(
            request.id, self._journal(request.environment).read(request.number, request.bytes_max, request.blocks_max)
        )

    def _keep_code(self, request: KeepCode) -> Answer:
        if sha256(request.content).digest() != request.digest:
            raise RefusedError(Code.DIGEST, "the code has another digest than was said")
        path = self._code_path(request.digest)
        try:
            if not path.exists():
                if sum(1 for _ in self._code.iterdir()) >= CODE_FILES_MAX:
                    raise RefusedError(Code.LIMIT, f"CODE_FILES_MAX is {CODE_FILES_MAX}")
                write_atomic(path, request.content)
        except (OSError, StorageError) as error:
            raise refusal_of(error, path) from error
        return Done(request.id)

    def _read_code(self, request: ReadCode) -> Answer:
        path = self._code_path(request.digest)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise RefusedError(Code.UNKNOWN, f"there is no code {request.digest.hex()}") from error
        except OSError as error:
            raise refusal_of(error, path) from error
        if sha256(content).digest() != request.digest:
            raise RefusedError(Code.CORRUPT, f"{path}: it has another digest")
        return Content(request.id, content)

    def _code_path(self, digest: bytes) -> Path:
        return self._code / f"{digest.hex()}.atc"

    def _keep_head(self, request: KeepHead) -> Answer:
        self._heads.keep(request.node, request.kept)
        return Done(request.id)

    def _forget(self, request: Forget) -> Answer:
        environment = request.environment
        if environment not in self._journals:
            raise RefusedError(Code.UNKNOWN, f"there is no environment {environment.hex()}")
        directory = self._envs / environment.hex()
        if not request.ended:
            return self._delete(request, directory)
        try:
            serial = 1 + sum(1 for one in self._ended.iterdir() if one.name.startswith(environment.hex()))
            directory.rename(self._ended / f"{environment.hex()}-{serial}")
            sync_directory(self._ended)
            sync_directory(self._envs)
        except OSError as error:
            raise refusal_of(error, directory) from error
        self._let_go(environment)
        self._over[environment] = None
        if len(self._over) > ENDED_MAX:
            del self._over[next(iter(self._over))]
        return Done(request.id)

    def _delete(self, request: Forget, directory: Path) -> Answer:
        """Delete a journal of which nothing was ever kept."""
        if not self._journals[request.environment].is_blank:
            raise RefusedError(Code.EXISTS, f"something of the environment {request.environment.hex()} is kept")
        gone = directory.with_name(f".{directory.name}.gone")
        try:
            directory.rename(gone)  # Whole or not at all.
            sync_directory(self._envs)
            rmtree(gone)
        except OSError as error:
            raise refusal_of(error, directory) from error
        self._let_go(request.environment)
        return Done(request.id)

    def _let_go(self, environment: bytes) -> None:
        self._journals.pop(environment).release()
        self._open.pop(environment, None)

    def _retain(self, request: Retain) -> Answer:
        journal = self._journal(request.environment)
        return Retained(request.id, journal.retain(request.number, request.bytes_min), journal.base)


def _is_id(name: str) -> bool:
    return len(name) == 2 * ID_BYTES and all(letter in "0123456789abcdef" for letter in name)
