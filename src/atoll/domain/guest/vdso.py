# SPDX-License-Identifier: Apache-2.0
"""The kernel's clock in the memory of a process, stopped: whoever asks it hears 1970, and the same in each replay.

The kernel lays a small library (the vDSO) into each process, by which the clock is read without a system call, so no
list of system calls can refuse it. What lost: taking its data away, because Python looks at the clock whenever it takes
a lock, and would die of that; telling the processor to refuse its counter (PR_SET_TSC), because each switch between a
guest and the server then takes 5 us longer in a virtual machine. So its functions are written over, in the copy of the
process that guests are forked from. On other processors than x86_64, and where the kernel keeps the library sealed, the
clock goes on, and only the guard stands before it. Machine code that reads the processor's counter itself is not seen.
"""

import ctypes
import mmap
import platform
from pathlib import Path
from struct import Struct
from typing import Final

__all__ = ["STUBS", "functions_of", "stop_clock"]

STUBS: Final = {
    "__vdso_clock_gettime": bytes.fromhex("31c0 488906 48894608 c3"),  # *rsi = {0, 0}; return 0
    "__vdso_gettimeofday": bytes.fromhex("31c0 4885ff 7407 488907 48894708 c3"),  # if (rdi) *rdi = {0, 0}; return 0
    "__vdso_time": bytes.fromhex("31c0 4885ff 7403 488907 c3"),  # if (rdi) *rdi = 0; return 0
    "__vdso_getrandom": bytes.fromhex("48c7c0daffffff c3"),  # return -ENOSYS: ask by the system call, which is refused.
}
"""What the functions become, on x86_64."""

_HEADER: Final = Struct("<16x2xHI8x8xQI2x2x2xHHH")  # ELF64: machine, version, section offset, flags, sizes.
_SECTION: Final = Struct("<IIQQQQIIQQ")  # Name, type, flags, address, offset, size, link, info, alignment, entry.
_SYMBOL: Final = Struct("<IBBHQQ")  # Name, info, other, section, value, size.
_DYNAMIC_SYMBOLS: Final = 11
_X86_64: Final = 62


def functions_of(image: bytes) -> dict[str, int]:
    """Return where the functions of such a library begin, from its start; empty: it is none for x86_64.

    Args:
        image: The library as it is in memory.
    """
    if len(image) < _HEADER.size or not image.startswith(b"\x7fELF\x02\x01"):
        return {}
    machine, _, sections_at, _, size, count, _ = _HEADER.unpack_from(image)
    if machine != _X86_64 or size != _SECTION.size or sections_at + size * count > len(image):
        return {}
    sections: list[tuple[int, ...]] = [
        _SECTION.unpack_from(image, sections_at + size * number) for number in range(count)
    ]
    found: dict[str, int] = {}
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != _DYNAMIC_SYMBOLS or link >= count or offset + length > len(image):
            continue
        names_at = sections[link][4]
        for at in range(offset, offset + length - _SYMBOL.size + 1, _SYMBOL.size):
            name_at, _, _, _, value, _ = _SYMBOL.unpack_from(image, at)
            name = image[names_at + name_at :].partition(b"\x00")[0]
            found[name.decode("ascii", "replace")] = value
    return found


def stop_clock() -> bool:
    """Stop the clock of this process and of all that are forked from it; return whether it stands."""
    if platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        if not line.endswith("[vdso]"):
            continue
        start, end = (int(part, 16) for part in line.partition(" ")[0].split("-"))
        functions = functions_of(ctypes.string_at(start, end - start))
        if libc.mprotect(start, end - start, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
            return False
        for name, stub in STUBS.items():
            if name in functions:
                ctypes.memmove(start + functions[name], stub, len(stub))
        libc.mprotect(start, end - start, mmap.PROT_READ | mmap.PROT_EXEC)
    return int(libc.time(None)) == 0
