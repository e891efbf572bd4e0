# SPDX-License-Identifier: Apache-2.0
"""How far the journals are that other nodes keep: so anybody notices when a node shows another past, or less of it.

One file for each node that showed them, of records of one length. When it is full the newest of each environment stay,
and so does every pair of different heads for one block, which is proof of a forgery.

A power cut can leave a file longer than what was written of it: such an end is cut off before anything is put behind
it. A record that does not check elsewhere is passed over, since each of the others says by itself what it is worth.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final, final
from zlib import crc32

from atoll.base.errors import StorageError
from atoll.domain.limits import HEADS_BYTES_MAX, HEADS_NODES_MAX
from atoll.domain.recorder.disk import cut_file, read_at, refusal_of, sync_directory, write_all
from atoll.domain.recorder.messages import Code, KeptHead, RefusedError
from atoll.env.chain import Link
from atoll.host.files import make_private_directory, write_atomic

__all__ = ["HeadFiles", "decode_heads", "encode_head"]

_RECORD: Final = Struct("<16s32sQQQI32s64sI")
_CHECKED: Final = _RECORD.size - 4


@final
class HeadFiles:
    """The directory of them.

    Args:
        directory: Made when missing.
        bytes_max: Of one node's file.

    Raises:
        StorageError: It cannot be made.
    """

    def __init__(self, directory: Path, *, bytes_max: int = HEADS_BYTES_MAX) -> None:
        make_private_directory(directory)
        self._directory: Final = directory
        self._bytes_max: Final = bytes_max
        self._whole: Final[set[bytes]] = set()  # Nodes whose files end with a record that checks.

    def keep(self, node: bytes, kept: KeptHead) -> None:
        """Keep one more, durably.

        Raises:
            RefusedError: LIMIT, too many nodes or environments; FULL, IO.
        """
        path = self._path(node)
        record = encode_head(kept)
        try:
            if not path.exists():
                self._begin(path)
            size = self._cut_back(path, node)
            self._whole.discard(node)  # Until what follows has succeeded.
            if size + _RECORD.size > self._bytes_max:
                size = self._thin_out(path, node)
            self._append(path, record, size)
            self._whole.add(node)
        except (OSError, StorageError) as error:
            raise refusal_of(error, path) from error

    def read(self, node: bytes) -> tuple[KeptHead, ...]:
        """Return what is kept of one node's journals and checks, in the order it came; none: nothing is.

        Raises:
            RefusedError: IO.
        """
        path = self._path(node)
        try:
            return decode_heads(read_at(path, 0, HEADS_BYTES_MAX))[0]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise refusal_of(error, path) from error

    def _begin(self, path: Path) -> None:
        if sum(1 for _ in self._directory.iterdir()) >= HEADS_NODES_MAX:
            raise RefusedError(Code.LIMIT, f"HEADS_NODES_MAX is {HEADS_NODES_MAX}")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_directory(self._directory)

    def _cut_back(self, path: Path, node: bytes) -> int:
        """Cut a file back to the end of its last record that checks; return its size. Raises ``OSError``."""
        size = path.stat().st_size
        if node in self._whole and not size % _RECORD.size:
            return size
        data = read_at(path, 0, size)
        end = len(data) - len(data) % _RECORD.size
        while end and not _checks(data, end - _RECORD.size):
            end -= _RECORD.size
        if end < size:
            cut_file(path, end)
        return end

    def _append(self, path: Path, record: bytes, size: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            write_all(descriptor, record)
            os.fdatasync(descriptor)
        except OSError:
            with suppress(OSError):  # The next one does it else, or cuts off what is no record.
                os.ftruncate(descriptor, size)
            raise
        finally:
            os.close(descriptor)

    def _thin_out(self, path: Path, node: bytes) -> int:
        """Let go of what later heads cover; return the size of what is left."""
        left = b"".join(encode_head(kept) for kept in _worth_keeping(self.read(node)))
        if len(left) + _RECORD.size > self._bytes_max:
            raise RefusedError(Code.LIMIT, f"HEADS_BYTES_MAX is {self._bytes_max}")
        write_atomic(path, left)
        return len(left)

    def _path(self, node: bytes) -> Path:
        return self._directory / f"{node.hex()}.ath"


def encode_head(kept: KeptHead) -> bytes:
    """Return the record of a head."""
    link = kept.link
    numbers = link.number, link.epoch, link.first_event, link.events
    record = _RECORD.pack(kept.environment, link.before, *numbers, link.body, kept.signature, 0)[:_CHECKED]
    return record + crc32(record).to_bytes(4, "little")


def _checks(data: bytes, offset: int) -> bool:
    """Tell whether the record at an offset is what was written."""
    *_, check = _RECORD.unpack_from(data, offset)
    return crc32(data[offset : offset + _CHECKED]) == int(check)


def decode_heads(data: bytes) -> tuple[tuple[KeptHead, ...], int]:
    """Return the heads in a file, in the order they came, and how many records in it do not check; total.

    Bytes behind the last whole record are what a crash left, and do not count.
    """
    heads: list[KeptHead] = []
    offsets = range(0, len(data) - len(data) % _RECORD.size, _RECORD.size)
    for offset in offsets:
        if _checks(data, offset):
            environment, *link, signature, _ = _RECORD.unpack_from(data, offset)
            heads.append(KeptHead(environment, Link(*link), signature))
    return tuple(heads), len(offsets) - len(heads)


def _worth_keeping(heads: Iterable[KeptHead]) -> list[KeptHead]:
    newest: dict[bytes, int] = {}
    variants: dict[tuple[bytes, int], dict[bytes, KeptHead]] = {}
    for kept in heads:
        newest[kept.environment] = max(newest.get(kept.environment, 0), kept.link.number)
        variants.setdefault((kept.environment, kept.link.number), {})[kept.link.head] = kept
    return [
        kept
        for (environment, number), by_head in variants.items()
        for kept in by_head.values()
        if len(by_head) > 1 or number == newest[environment]
    ]
