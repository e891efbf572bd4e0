# SPDX-License-Identifier: Apache-2.0
"""What one node keeps on disk, and where: its identity, the roster, its settings, its journal.

Identity first: it is written once, durably, before anything else exists, and never replaced. The roster is replaced
whole by an atomic rename. So a crash between any two lines leaves the identity and the last roster, or nothing at all.
"""

import logging
import os
import shlex
from pathlib import Path
from typing import Final, final

import msgspec

from atoll.base.errors import CorruptError, StorageError, UserError
from atoll.base.member import RelayWill
from atoll.group.identity import IDENTITY_BYTES, Identity
from atoll.host.files import (
    StateLock,
    explain,
    make_private_directory,
    read_private,
    storage_error,
    write_atomic,
    write_private,
)
from atoll.node.rules import Rules
from atoll.node.views import ENDED_NAME, Problem

__all__ = [
    "LOCK_NAME",
    "LOG_NAME",
    "ROSTER_NAME",
    "SOCKET_NAME",
    "STATE_SIGNS",
    "Settings",
    "StateDirectory",
    "peek_settings",
]

log: Final = logging.getLogger("atoll.node")

STATE_FORMAT: Final = 1
SOCKET_NAME: Final = "control.sock"
LOG_NAME: Final = "node.log"
SETTINGS_NAME: Final = "settings.json"
ROSTER_NAME: Final = "roster"
TIMESTAMP_NAME: Final = "timestamp"
LOCK_NAME: Final = "lock"
STATE_SIGNS: Final = (LOCK_NAME, "identity")  # Files by which a state directory is known.
SETTINGS_BYTES_MAX: Final = 256 * 1024  # Limit. A settings file is below 1 KiB, with all the rules there may be 64.
ROSTER_BYTES_MAX: Final = 4 * 1024 * 1024  # Limit. The roster's own limits keep it far below.
TIMESTAMP_BYTES: Final = 8


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node keeps from one ``up`` to the next.

    Attributes:
        format: Version of the whole state directory.
        name: Node name.
        group_name: Name of the group, for people.
        listen: ``HOST:PORT`` of the underlay sockets, with commas; TCP as ``tcp/HOST:PORT``.
        advertise: Addresses told to the members instead of the detected ones.
        relay: Whether to forward for others.
        relay_bytes_s: Budget for forwarding, bytes per second.
        tun: Whether this machine's own network stack is joined to the overlay.
        rules: Who may reach what here, and which packets travel how.
        metrics: ``HOST:PORT`` where metrics are served; empty: nowhere.
    """

    format: int = STATE_FORMAT
    name: str
    group_name: str
    listen: str
    advertise: tuple[str, ...] = ()
    relay: RelayWill = RelayWill.YES
    relay_bytes_s: int = 2_500_000
    tun: bool = False
    rules: Rules = Rules()
    metrics: str = ""


def peek_settings(path: Path) -> Settings | None:
    """Return what the node of a state directory keeps, without its lock; None: nothing that can be read."""
    try:
        return msgspec.json.decode((path / SETTINGS_NAME).read_bytes()[:SETTINGS_BYTES_MAX], type=Settings)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # What is wrong with it, ``up`` says.


class _Format(msgspec.Struct, frozen=True):
    format: int


@final
class StateDirectory:
    """One node's directory, locked for this process until ``close``.

    Args:
        path: Made when missing, with mode 0700.

    Raises:
        UserError: A103, another process holds it; A102, the disk is full; A110, it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        try:
            make_private_directory(path, signs=STATE_SIGNS)
            self._lock = StateLock(path / LOCK_NAME)
        except StorageError as error:
            raise explain(error, path / LOCK_NAME) from error

    def close(self) -> None:
        """Give the directory back."""
        self._lock.release()

    @property
    def socket(self) -> Path:
        """Where the local API listens."""
        return self.path / SOCKET_NAME

    @property
    def log(self) -> Path:
        """The log of a node in the background; older parts are beside it, numbered."""
        return self.path / LOG_NAME

    @property
    def journal(self) -> Path:
        """Directory of the journal's segments."""
        return self.path / "journal"

    def identity(self) -> Identity:
        """Return the node's identity; make one, durably, when there is none yet.

        Raises:
            UserError: A101, it is lost, cannot be read or is none; A102, the disk is full; A104, others may read it.
        """
        path = self.path / "identity"
        if not path.exists():
            if (self.path / ROSTER_NAME).exists():  # The group would see a stranger, and this node no member in itself.
                raise UserError(
                    "A101",
                    f"the key file {path} is missing",
                    where=f"{self.path} holds a roster, so there was one",
                    fix="restore it from a backup, or join as a new machine: atoll up --state NEW_DIR INVITE",
                )
            try:
                write_private(path, os.urandom(IDENTITY_BYTES))
            except StorageError as error:
                raise explain(error, path) from error
        secret = read_private(path)
        if len(secret) != IDENTITY_BYTES:
            raise UserError(
                "A101",
                f"the key file {path} is not an identity",
                where=f"{len(secret)} bytes, not {IDENTITY_BYTES}",
                fix="restore it from a backup, or join as a new machine: atoll up --state NEW_DIR INVITE",
            )
        return Identity(secret)

    def settings(self) -> Settings | None:
        """Return the kept settings; None: this directory has never been used.

        Raises:
            UserError: A106, written by a newer version; A108, damaged.
        """
        content = self._read(SETTINGS_NAME, SETTINGS_BYTES_MAX)
        if content is None:
            return None
        try:
            # The format alone first: what a newer version means by the rest is not ours to judge.
            written = msgspec.json.decode(content, type=_Format).format
            if written > STATE_FORMAT:
                raise UserError(
                    "A106",
                    "this state directory was written by a newer version of atoll",
                    where=f"{self.path}: format {written}, this version knows {STATE_FORMAT}",
                    fix="upgrade: pip install --upgrade atoll",
                )
            return msgspec.json.decode(content, type=Settings)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._damaged(SETTINGS_NAME, str(error)) from error

    def keep_settings(self, settings: Settings) -> None:
        """Replace the kept settings, durably.

        Raises:
            UserError: A102 or A110, the disk refused.
        """
        path = self.path / SETTINGS_NAME
        try:
            write_atomic(path, msgspec.json.format(msgspec.json.encode(settings)) + b"\n")
        except StorageError as error:
            raise explain(error, path) from error

    def roster(self) -> bytes | None:
        """Return the stored roster; None: no group yet.

        Raises:
            UserError: A108, it cannot be read.
        """
        return self._read(ROSTER_NAME, ROSTER_BYTES_MAX)

    def keep_roster(self, roster: bytes) -> None:
        """Replace the stored roster, durably.

        Raises:
            StorageError: The disk refused; the version before is still there.
        """
        write_atomic(self.path / ROSTER_NAME, roster)

    def timestamp_ns(self) -> int:
        """Return the last handshake timestamp known to be used, ns since 1970; 0: none.

        A lost or damaged file costs nothing but the protection against a clock that was set back.
        """
        try:
            content = self._read(TIMESTAMP_NAME, TIMESTAMP_BYTES)
        except UserError:
            return 0
        return int.from_bytes(content, "big") if content is not None and len(content) == TIMESTAMP_BYTES else 0

    def keep_timestamp(self, timestamp_ns: int) -> None:
        """Remember a handshake timestamp.

        Raises:
            StorageError: The disk refused.
        """
        write_atomic(self.path / TIMESTAMP_NAME, timestamp_ns.to_bytes(TIMESTAMP_BYTES, "big"))

    def keep_ending(self, problem: Problem | None) -> None:
        """Remember why the node ended by itself, for who asks later; None: it runs, or was told to end."""
        path = self.path / ENDED_NAME
        try:
            if problem is None:
                path.unlink(missing_ok=True)
            else:
                write_atomic(path, msgspec.json.encode(problem))
        except (StorageError, OSError) as error:  # Only for information.
            log.warning("cannot note why the node ended: %s", error)

    def check_never_used(self) -> None:
        """Make sure that no group has been here before another one is founded: its roster may have been lost.

        Raises:
            UserError: A108, a node has run here.
        """
        if (self.path / TIMESTAMP_NAME).exists():  # Written by a node that runs, and so after its first roster.
            raise UserError(
                "A108",
                f"the file {self.path / ROSTER_NAME} is missing, and a node has run here",
                where="it names the members of its group",
                fix=f"restore it from a backup, or join the group again: {self._again}",
            )

    @property
    def _again(self) -> str:
        return f"atoll up --state {shlex.quote(str(self.path))} INVITE"

    def damaged_roster(self, error: CorruptError) -> UserError:
        """Return what to tell a person whose roster does not decode."""
        return self._damaged(ROSTER_NAME, str(error))

    def _read(self, name: str, bytes_max: int) -> bytes | None:
        path = self.path / name
        try:
            with path.open("rb") as file:
                content = file.read(bytes_max + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain(storage_error(error, path), path) from error
        if len(content) > bytes_max:
            raise self._damaged(name, f"more than {bytes_max} bytes")
        return content

    def _damaged(self, name: str, why: str) -> UserError:
        return UserError(
            "A108",
            f"the file {self.path / name} is damaged",
            where=why,
            fix="restore it from a backup, or move it away "
            + (f"and join the group again: {self._again}" if name == ROSTER_NAME else "and say anew what it held"),
        )
