# SPDX-License-Identifier: Apache-2.0

"""Every decoder that foreign bytes reach, what it may raise, and good encodings to start from.

This list is the one place where decoders are registered: `make fuzz` runs atheris over it, and
tests/property/test_decoders_fuzz.py runs hypothesis over it on each change, together with the kept corpus in
fuzz/corpus/NAME. Whoever writes a decoder adds a line to ``DECODERS``. What atheris finds is written to
fuzz/corpus/NAME and committed with the fix.
"""

import argparse
import importlib
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from atoll.base.errors import CorruptError, UserError, WireError
from atoll.base.member import Member
from atoll.conduit import packets
from atoll.conduit.stream import Kind, Service
from atoll.core.journal import Provenance, Recorder, read
from atoll.core.machine import MachineKind
from atoll.group import messages as group
from atoll.group.invite import Invitation, decode_invitation, encode_invitation
from atoll.group.statement import Admit, Statement, decode_statement, encode_statement
from atoll.overlay import messages as overlay

__all__ = ["DECODERS", "Decoder", "corpus_of", "run_once"]

CORPUS: Final = Path(__file__).resolve().parent / "corpus"
INPUT_BYTES_MAX: Final = 4096  # Longer than every bound of the formats below but the journal's.


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way in for foreign bytes.

    Attributes:
        name: Also the name of its corpus directory.
        decode: Called with any bytes.
        refuses: What it may raise; anything else is a fault.
        seeds: Good encodings, made by the encoder of today.
    """

    name: str
    decode: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]


_NODE: Final = bytes(range(10))
_MEMBER: Final = Member(b"k" * 32, b"s" * 32, "fra-1", (("192.0.2.1", 41641), ("2001:db8::1", 41641)))
_LINK: Final = overlay.Link(_NODE, 88_000, 900, 120, 0, 1)
_INVITATION: Final = Invitation(
    b"i" * 16, b"k" * 32, (("192.0.2.1", 41641), ("2001:db8::1", 1)), 1_700_000_000, b"g" * 8
)
_SOURCE, _TARGET = b"\xfd" + bytes(15), b"\xfd" + b"\1" * 15


class _Echo:
    """The smallest machine, for a journal to start from."""

    deadline_ns: int | None = None

    def handle(self, event: overlay.Probe, now_ns: int) -> tuple[overlay.Probe, ...]:
        return (event,) if now_ns else ()

    def snapshot(self) -> bytes:
        return b"\xc0"


def _journal() -> bytes:
    kind: MachineKind[overlay.Probe, overlay.Probe] = MachineKind(
        "echo", 1, overlay.Probe, overlay.Probe, lambda _: _Echo()
    )
    recorder = Recorder(kind, _Echo(), Provenance("0.1.0", "fra-1", 1, 0), segment_bytes_max=120)
    for now_ns in range(5):
        recorder.handle(overlay.Probe(now_ns, 1, 1000, 0, 0, 0, 0, 0), now_ns)
    return b"".join(append.payload for append in recorder.drain())


DECODERS: Final = (
    Decoder(
        "overlay",
        overlay.decode,
        (WireError,),
        (
            overlay.encode(overlay.Probe(1, 2, 1000, 3, 4, 5, 0xFFFF_FFFF, 1)),
            overlay.encode(overlay.LinkState(7, 1, True, 0, 1, 255, 2, (_LINK, _LINK))),  # noqa: FBT003  A wire field.
            overlay.encode(overlay.LabelRequest(_NODE)),
            overlay.encode(overlay.LabelGrant(_NODE, 1, b"a" * 32, 2, b"b" * 32, 120)),
            overlay.encode(overlay.LabelRefusal(_NODE, 2)),
        ),
    ),
    Decoder(
        "group",
        group.decode,
        (WireError,),
        (
            group.encode(group.Hello(1, 1, 99, 1_700_000_000, "0.1.0")),
            group.encode(group.Digest(99, b"d" * 16)),
            group.encode(group.JoinRequest(1, 1, _MEMBER, b"p" * 64, 0)),
        ),
    ),
    Decoder(
        "statement",
        decode_statement,
        (WireError,),
        (encode_statement(Statement(b"s" * 32, 1, b"", Admit(_MEMBER), b"g" * 64)),),
    ),
    Decoder(
        "invitation",
        lambda data: decode_invitation(data.decode("utf-8", "replace")),
        (UserError,),
        (encode_invitation(_INVITATION).encode(),),
    ),
    Decoder(
        "packet",
        packets.parse,
        (WireError,),
        (
            packets.build_udp(packets.UdpPacket(_SOURCE, _TARGET, 0, 1, 2, b"payload")),
            packets.build_echo(packets.EchoPacket(_SOURCE, _TARGET, 1, False, 1, 2, b"odd")),  # noqa: FBT003  A field.
        ),
    ),
    Decoder(
        "stream",
        # A stream's reader hands over exactly a header, whatever the sender did.
        lambda data: Service.decode((data + bytes(4))[: len(Service(Kind.ECHO).encode())]),
        (WireError,),
        (Service(Kind.TCP, 443).encode(),),
    ),
    Decoder("journal", lambda data: list(read(data)), (CorruptError, UserError), (_journal(),)),
)


def corpus_of(decoder: Decoder) -> list[bytes]:
    """Return the seeds and the kept corpus of a decoder."""
    kept = sorted(path for path in (CORPUS / decoder.name).glob("*") if path.is_file())
    return [*decoder.seeds, *(path.read_bytes() for path in kept)]


def run_once(decoder: Decoder, data: bytes) -> bool:
    """Decode these bytes; return whether they are good. Anything but a declared refusal is raised."""
    try:
        decoder.decode(data)
    except decoder.refuses:
        return False
    return True


def _fuzz(name: str, seconds: int) -> None:
    """Run atheris over one decoder; it ends the process itself."""
    atheris: Any = importlib.import_module("atheris")  # Not in the default install, and without types.
    decoder = next(decoder for decoder in DECODERS if decoder.name == name)
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    found = CORPUS.parent / "found" / name  # Not committed: what covers new code, and what crashed.
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(decoder.seeds):
        (found / f"seed-{number}").write_bytes(seed)

    def one_input(data: bytes) -> None:
        run_once(decoder, data)

    atheris.instrument_all()
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-artifact_prefix={found}/crash-",
        "-verbosity=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(found), str(folder)], one_input)
    atheris.Fuzz()


def main(arguments: Sequence[str]) -> int:
    """Fuzz all decoders, or one, for so many seconds each; return the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz the decoders with atheris.")
    parser.add_argument("--only", metavar="NAME", choices=[decoder.name for decoder in DECODERS])
    parser.add_argument("--seconds", type=int, default=60, help="for each decoder")
    options = parser.parse_args(arguments)
    failed: list[str] = []
    for name in [options.only] if options.only else [decoder.name for decoder in DECODERS]:
        process = multiprocessing.get_context("spawn").Process(target=_fuzz, args=(name, options.seconds))
        process.start()
        process.join()
        if process.exitcode:
            failed.append(name)
    sys.stdout.write(f"fuzz: faults in {', '.join(failed)}; see fuzz/found\n" if failed else "fuzz: no faults\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
