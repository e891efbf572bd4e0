# SPDX-License-Identifier: Apache-2.0
"""UDP ping-pong at a steady rate, as a program of its own with nothing but the standard library.

    net_probe.py serve ADDRESS PORT
    net_probe.py drive SOURCE TARGET PORT RATE     prints ``S number time`` and ``R number time``

Times are the machine's monotonic clock, in seconds, so that the harness can relate them to its own events.
"""

import contextlib
import select
import socket
import struct
import sys
import time

NUMBER = struct.Struct("!I")
SIZE = 64


def opened(address: str, port: int) -> socket.socket:
    probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind((address, port))
    return probe


def serve(address: str, port: int) -> None:
    probe = opened(address, port)
    while True:
        data, source = probe.recvfrom(2048)
        with contextlib.suppress(OSError):
            probe.sendto(data, source)


def drive(source: str, target: str, port: int, rate: float) -> None:
    probe = opened(source, 0)
    probe.settimeout(0)
    began, number = time.monotonic(), 0
    while True:
        lines = []
        now = time.monotonic()
        if now >= began + number / rate:
            lines.append(f"S {number} {now:.6f}\n")
            with contextlib.suppress(OSError):
                probe.sendto(NUMBER.pack(number).ljust(SIZE, b"\0"), (target, port))
            number += 1
        wait = max(0.0, began + number / rate - time.monotonic())
        if select.select([probe], [], [], wait)[0]:
            with contextlib.suppress(OSError):
                while True:
                    data = probe.recv(2048)
                    lines.append(f"R {NUMBER.unpack_from(data)[0]} {time.monotonic():.6f}\n")
        if lines:
            sys.stdout.write("".join(lines))
            sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        if sys.argv[1] == "serve":
            serve(sys.argv[2], int(sys.argv[3]))
        else:
            drive(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
