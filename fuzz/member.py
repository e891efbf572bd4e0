# SPDX-License-Identifier: Apache-2.0
"""A member of a simulated group, and its local API without a socket, for the fuzz targets."""

import asyncio
from functools import cache
from types import SimpleNamespace
from typing import Any, Final

import msgspec

from atoll.base.errors import UserError
from atoll.base.units import SECOND_NS
from atoll.conduit.names import Book
from atoll.conduit.stream import BrokenStreamError, Reason
from atoll.device.nic.messages import GatewayShared
from atoll.health.members.vitals import Vitals
from atoll.lab.groups import blueprints, factory_of, identity_of
from atoll.node import api
from atoll.node.control import Control
from atoll.node.methods import Methods
from atoll.node.reporting import Around, RelayMeter
from atoll.sim import LinkSpec, World, full_mesh

__all__ = ["NOW_NS", "WALL_NS", "answer_request", "group_of_three"]

NOW_NS: Final = 1_000 * SECOND_NS
PATIENCE_S: Final = 0.5
WALL_NS: Final = 1_700_000_000 * SECOND_NS


@cache
def group_of_three() -> tuple[bytes, int]:
    """Return the snapshot of a member that is linked to two others, and its time."""
    world = World(full_mesh(3, LinkSpec(delay_ns=10_000_000)), factory_of(blueprints(3, 1)), seed=1)
    world.start_all()
    world.run(5 * SECOND_NS)
    first = world.program(0)
    assert first is not None
    return first.control.snapshot(), world.clock(0).monotonic_ns()


@cache
def _methods() -> dict[str, api.Method]:
    """Return the local API's methods of a member that is linked to two others."""
    snapshot, now_ns = group_of_three()
    control = Control.restore(snapshot)

    async def nothing(*_: object) -> None:
        pass

    async def pause(wait_s: float) -> None:
        if wait_s > PATIENCE_S:  # As when the client hangs up after the first line of an answer.
            raise ConnectionError

    async def opened(host: str, port: int) -> tuple[str, int]:
        return host, port

    def unreachable(*_: object) -> None:
        raise BrokenStreamError(Reason.UNREACHABLE)

    async def shared(*_: object) -> GatewayShared:
        return GatewayShared(b"g" * 32, ())

    forward = SimpleNamespace(connections=0, start=opened, close=nothing)  # It opens no port.
    stack = SimpleNamespace(echo=nothing, **dict.fromkeys(("tcp_forward", "udp_forward", "proxy"), lambda *_: forward))
    stack.answer, stack.streams = lambda *_: None, SimpleNamespace(open=unreachable, stands=lambda *_: False)
    around = Around(
        control, now_ns, 0, group_name="group", listen="udp/10.0.0.1:7747", endpoints={}, meter=RelayMeter()
    )
    clock = SimpleNamespace(wall_ns=lambda: WALL_NS, monotonic_ns=lambda: NOW_NS)
    node: Any = SimpleNamespace(
        control=control,
        around=lambda: around,
        book=lambda: Book(control.group.group, "group", control.group.own, control.group.roster.members()),
        stack=stack,
        feed=lambda _: None,
        share_gateway=shared,
        seen_at=lambda _: None,
        confirm=nothing,
        endpoints=(("10.0.0.1", 7747),),
        plan=SimpleNamespace(
            clock=clock,
            identity=identity_of(1, 0),
            group=control.group.group,
            settings=SimpleNamespace(group_name="group"),
        ),
        loop_time=lambda: 0.0,
        pause=pause,
        senses=SimpleNamespace(vitals=Vitals()),
        end_soon=lambda: None,
        inner=SimpleNamespace(offer=nothing),
    )
    return dict(Methods(node).table())


class _Sink:
    """Takes an answer of the local API."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, line: bytes) -> None:
        self.written += line

    async def drain(self) -> None:
        pass


def answer_request(line: bytes) -> None:
    """Answer one line of the local API. The answer is whole lines of JSON; an error has a code and a fix."""
    sink: Any = _Sink()
    asyncio.run(api._answer(line, sink, _methods()))  # noqa: SLF001 - what stands behind the socket.
    for answer in sink.written.splitlines():
        decoded = msgspec.json.decode(answer)
        if "error" in decoded:
            raise UserError(decoded["error"]["code"], decoded["error"]["sentence"], fix=decoded["error"]["fix"])
