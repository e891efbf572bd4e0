# SPDX-License-Identifier: Apache-2.0
"""Whose the packets of this machine are: which program sends a flow, as control found out.

Decides when control is asked. This process sees packets and no programs, so each flow that is new, or was silent so
long that its port may have gone to another program, is reported once, and control answers. Until it does, some
milliseconds, the rules without a program hold; what was answered before holds until the next answer.

A flow is, of UDP, a source port: one socket may send to many. Of TCP it is the whole connection, because the kernel
gives one source port to two programs that connect to different places.
"""

from collections.abc import Sequence
from typing import Final, final

from atoll.device.nic.limits import (
    FLOW_ASK_NS,
    FLOW_IDLE_NS,
    FLOW_QUESTIONS_BURST,
    FLOW_QUESTIONS_PER_S,
    FLOWS_MAX,
)
from atoll.device.nic.messages import FlowOpened, FlowOwned, Report, SetTraffic
from atoll.device.nic.meter import Meter

__all__ = ["Entry", "Flow", "Flows"]

_TCP: Final = 6
_TARGET_AT: Final = 24  # Address, 16 bytes; the ports stand behind it.
_PORTS_AT: Final = 40
_PORT_END: Final = 42
_PORTS_END: Final = 44
_SOURCE_PORT_AT: Final = 16  # In ``FlowOpened.flow``.
_TCP_FLAGS_AT: Final = 53
_SYN_ACK: Final = 0x12
_SYN: Final = 0x02

Entry = tuple[bytes, int, int, int, int, int, int]  # Of ``SetTraffic``, without the program.


@final
class Flow:
    """One flow.

    Attributes:
        entries: Rules that hold for it.
        tag: What all its packets get; -1: the rules count.
        is_known: Whether control has answered.
        asked_ns: When it was asked last.
        used_ns: When it sent last.
    """

    __slots__ = ("asked_ns", "entries", "is_known", "tag", "used_ns")

    def __init__(self, entries: Sequence[Entry], now_ns: int) -> None:
        self.entries, self.tag, self.is_known = entries, -1, False
        self.asked_ns = self.used_ns = now_ns


@final
class Flows:
    """The flows of this machine.

    Args:
        reports: What control is to be asked is put there.

    Attributes:
        is_active: Whether control wants to be asked.
    """

    __slots__ = ("_entries", "_flows", "_questions", "_reports", "is_active")

    def __init__(self, reports: list[Report]) -> None:
        self._reports = reports
        self._entries: tuple[tuple[Entry, int], ...] = ()
        self._flows: Final[dict[bytes, Flow]] = {}
        self._questions: Final = Meter(per_s=FLOW_QUESTIONS_PER_S, burst=FLOW_QUESTIONS_BURST)
        self.is_active = False

    def set(self, order: SetTraffic) -> None:
        """Replace the rules, and forget what was answered under the old ones."""
        self._entries = tuple((entry[:7], entry[7]) for entry in order.entries)
        self._flows.clear()
        self.is_active = order.asks

    def entries_of(self, programs: Sequence[int]) -> Sequence[Entry]:
        """Return the rules that hold for packets of these programs."""
        return tuple(entry for entry, program in self._entries if not program or program in programs)

    def find(self, packet: bytes | bytearray | memoryview, now_ns: int) -> Flow | None:
        """Return the flow of a packet that has ports; None: it is new, and control was asked, or is by a later packet.

        Args:
            packet: Its beginning, 44 bytes at least.
            now_ns: Monotonic time.
        """
        protocol = packet[6]
        key = bytes(packet[_TARGET_AT:_PORTS_END] if protocol == _TCP else packet[_PORTS_AT:_PORT_END])
        flow = self._flows.get(key)
        if flow is None:
            if self._is_asked(packet, now_ns):
                if len(self._flows) >= FLOWS_MAX:
                    del self._flows[next(iter(self._flows))]
                self._flows[key] = Flow(self.entries_of(()), now_ns)
            return None
        if (
            now_ns - flow.asked_ns >= FLOW_ASK_NS
            and self._is_doubtful(flow, packet, now_ns)
            and self._is_asked(packet, now_ns)
        ):
            flow.asked_ns = now_ns
        flow.used_ns = now_ns
        return flow

    def learn(self, order: FlowOwned) -> None:
        """Take whose a flow is, if it is one that we asked for."""
        key = order.flow if order.protocol == _TCP else order.flow[_SOURCE_PORT_AT : _SOURCE_PORT_AT + 2]
        flow = self._flows.get(key)
        if flow is not None:
            flow.entries, flow.tag, flow.is_known = self.entries_of(order.programs), order.tag, True

    def _is_doubtful(self, flow: Flow, packet: bytes | bytearray | memoryview, now_ns: int) -> bool:
        """Return whether an answer is missing, or may be about another program's flow of the same name."""
        if not flow.is_known or now_ns - flow.used_ns >= FLOW_IDLE_NS:
            return True
        is_tcp = packet[6] == _TCP and len(packet) > _TCP_FLAGS_AT
        return is_tcp and packet[_TCP_FLAGS_AT] & _SYN_ACK == _SYN

    def _is_asked(self, packet: bytes | bytearray | memoryview, now_ns: int) -> bool:
        """Ask control whose a packet is; False: it is asked too much already."""
        if not self._questions.fits(1, now_ns):
            return False
        self._questions.take(1, now_ns)
        self._reports.append(FlowOpened(packet[6], bytes(packet[_TARGET_AT:_PORTS_END])))
        return True
