# SPDX-License-Identifier: Apache-2.0
"""Whether two running processes use one member's key, and which of them must end. State, no effects.

Each process says a random number (``boot``) and when it started. A new boot is a restart, as a rule: then the old one
is never heard again, but for packets that were under way. Two are alive when the boot heard first is heard once more
some seconds after the other appeared. The one that started *later* must end; every member that hears both comes to the
same answer, because it compares what they say (start, then boot), not in which order it met them.

Two processes with one key have one session with each member between them, and it is the one's or the other's as they
shake hands. So the word that one must end is repeated for a while: it may reach the wrong one, who ignores it.
"""

import msgspec

from atoll.group.limits import BOOT_FORGET_NS, BOOTS_MAX, TWIN_GRACE_NS, TWIN_REPEAT_NS, TWIN_TELL_NS

__all__ = ["Accused", "Boot", "Twins"]


class Boot(msgspec.Struct):
    """One process of a member.

    Attributes:
        boot: Its random number.
        started_s: Its start by its own clock.
        first_ns: When it was first heard.
        heard_ns: When it was last heard.
    """

    boot: int
    started_s: int
    first_ns: int
    heard_ns: int


class Accused(msgspec.Struct):
    """A process that must end.

    Attributes:
        boot: Its random number.
        due_ns: When it is to be told again.
        until_ns: When that ends.
    """

    boot: int
    due_ns: int
    until_ns: int


class Twins(msgspec.Struct):
    """Processes heard of each member, at most BOOTS_MAX of each, and those of them that must end."""

    boots: dict[bytes, list[Boot]] = {}
    accused: dict[bytes, Accused] = {}

    def introduced(self, node: bytes, boot: int, started_s: int, now_ns: int) -> int | None:
        """Note a Hello; return the boot that must end, None for none."""
        known = [b for b in self.boots.get(node, []) if now_ns - b.heard_ns < BOOT_FORGET_NS]
        if all(b.boot != boot for b in known):
            if len(known) == BOOTS_MAX:
                known.remove(min(known, key=lambda b: b.heard_ns))
            known.append(Boot(boot, started_s, now_ns, now_ns))  # So the list is in the order of first hearing.
        self.boots[node] = known
        return self.heard(node, boot, now_ns)

    def heard(self, node: bytes, boot: int, now_ns: int) -> int | None:
        """Note any message that carries a boot; return the boot that must end, None for none."""
        known = self.boots.get(node, [])
        for process in known:
            if process.boot == boot:
                process.heard_ns = now_ns
        lately = [
            process for process in known if now_ns - process.heard_ns < TWIN_TELL_NS
        ]  # The others may have ended.
        alive = [
            process
            for index, first in enumerate(lately)
            for second in lately[index + 1 :]
            if first.heard_ns >= second.first_ns + TWIN_GRACE_NS
            for process in (first, second)
        ]
        if not alive:
            return None
        boot = max((b.started_s, b.boot) for b in alive)[1]
        self.accused[node] = Accused(boot, now_ns + TWIN_REPEAT_NS, now_ns + TWIN_TELL_NS)
        return boot

    @property
    def deadline_ns(self) -> int | None:
        """When ``due`` has something to say; None: never."""
        return min((accused.due_ns for accused in self.accused.values()), default=None)

    def due(self, now_ns: int) -> list[tuple[bytes, int]]:
        """Return (node, boot) of the processes that are to be told once more now."""
        self.accused = {node: accused for node, accused in self.accused.items() if now_ns < accused.until_ns}
        told: list[tuple[bytes, int]] = []
        for node, accused in self.accused.items():
            if now_ns >= accused.due_ns:
                accused.due_ns = now_ns + TWIN_REPEAT_NS
                told.append((node, accused.boot))
        return told

    def forget(self, node: bytes) -> None:
        """Drop what is known of a former member."""
        self.boots.pop(node, None)
        self.accused.pop(node, None)
