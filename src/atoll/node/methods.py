# SPDX-License-Identifier: Apache-2.0
"""The methods of the local API: what the command line can ask a running node. Each checks its own parameters.

Normative text: docs/reference/api.md.
"""

import asyncio
import ipaddress
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final, final

import msgspec

from atoll.base.errors import UsageError, UserError
from atoll.base.ids import DIRECT, Endpoint, NodeId, is_tcp
from atoll.base.units import SECOND_NS
from atoll.conduit.forward import TcpForward
from atoll.conduit.forward_udp import UdpForward
from atoll.conduit.limits import TARGETS_MAX
from atoll.conduit.names import Missing
from atoll.conduit.proxy import Proxy
from atoll.conduit.stream import Kind
from atoll.domain.commands import VERBS as ENVIRONMENT_VERBS
from atoll.group.events import InviteIssued, RemoveAsked
from atoll.group.invite import (
    GROUP_PREFIX_BYTES,
    INVITE_ENDPOINTS_MAX,
    INVITE_SECRET_BYTES,
    Invitation,
    encode_invitation,
    invite_public_key,
)
from atoll.group.limits import INVITE_VALID_S
from atoll.node.addresses import PORT_MAX, parse_address, parse_endpoint
from atoll.node.api import Answer, Method
from atoll.node.asking import Answerer, Asked, Doors, Failure, ask_can, ask_why, pathless
from atoll.node.attachments import Attachments
from atoll.node.clients import Clients
from atoll.node.diagnosing import Diagnostics
from atoll.node.parameters import decoded, tag_number
from atoll.node.reporting import name_of, status_view, why_view
from atoll.node.rules import Rules
from atoll.node.service import Node
from atoll.node.targets import ranked
from atoll.node.views import (
    CanView,
    DiagnosisView,
    DoorView,
    ForwardView,
    InviteView,
    MetricsView,
    PingView,
    StatusView,
    WhyView,
)
from atoll.overlay.policy import TAG_NAMES

__all__ = ["FORWARDS_MAX", "Methods"]

log: Final = logging.getLogger("atoll.node")

FORWARDS_MAX: Final = 128  # Limit. Each holds a listening socket.
SAMPLES_MAX: Final = 1000  # Limit. In one call.
LATENCY_S_MAX: Final = 86_400.0
AMOUNT_MAX: Final = float(1 << 48)
PING_TIMEOUT_S: Final = 2.0  # An answer later than this is as good as none.
PING_INTERVAL_S: Final = 1.0
PING_COUNT_MAX: Final = 10_000  # Limit.


class _Target(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    tag: str = TAG_NAMES[0]
    source: str | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=PORT_MAX)] = 0


class _Can(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    target: str
    port: Annotated[int, msgspec.Meta(ge=0, le=PORT_MAX)]
    protocol: str = "tcp"


class _Rules(msgspec.Struct, forbid_unknown_fields=True):
    rules: Rules


class _Ping(msgspec.Struct, forbid_unknown_fields=True):
    node: str
    count: int = 4
    tag: str = TAG_NAMES[0]


class _Sample(msgspec.Struct, forbid_unknown_fields=True):
    component: str
    latency_s: float | None  # JSON has no other word for what is no number.
    amount: float | None = 1.0


class _Samples(msgspec.Struct, forbid_unknown_fields=True):
    samples: Annotated[tuple[_Sample, ...], msgspec.Meta(max_length=SAMPLES_MAX)]


class _NodeName(msgspec.Struct, forbid_unknown_fields=True):
    node: str


class _Forward(msgspec.Struct, forbid_unknown_fields=True):
    protocol: str
    local: str
    node: str = ""
    port: Annotated[int, msgspec.Meta(ge=0, le=PORT_MAX)] = 0
    tag: str = TAG_NAMES[0]
    anyone: bool = False


class _Private(msgspec.Struct, forbid_unknown_fields=True):
    tag: str | None = None
    pid: int = 0
    born: int = 0


class _Id(msgspec.Struct, forbid_unknown_fields=True):
    id: int


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


_Diagnosing = Awaitable[DiagnosisView | None]


class Done(msgspec.Struct, frozen=True):
    """Answer of a method that has nothing to tell."""

    done: bool = True


@final
class Methods:
    """The methods of one running node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._forwards: dict[int, tuple[ForwardView, TcpForward | UdpForward | Proxy]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._attachments = Attachments(node)
        self._clients = Clients(node)
        self._next_id = 1
        node.departed = self._departed
        self._diagnostics = Diagnostics(node)
        node.stack.answer(
            Kind.QUESTION,
            Answerer(
                self._is_member,
                Doors(self._explained, self._permitted, node.inner.offer, self._diagnostics.tell),
                node.loop_time,
            ).serve,
        )

    def table(self) -> Mapping[str, Method]:
        """Return the methods by name."""
        return {
            "status": self.status,
            "metrics": self.metrics,
            "why": self.why,
            "can": self.can,
            "rules": self.rules,
            "ping": self.ping,
            "observe": self.observe,
            "invite": self.invite,
            "remove": self.remove,
            "forward.add": self.forward_add,
            "forward.list": self.forward_list,
            "forward.remove": self.forward_remove,
            "connect": self._attachments.connect,
            "datagrams": self._attachments.datagrams,
            "events": self._attachments.events,
            "client.add": self._clients.add,
            "client.list": self._clients.list,
            "client.remove": self._clients.remove,
            "private": self.private,
            **{f"env.{verb}": partial(self._environment, verb) for verb in ENVIRONMENT_VERBS},
            "down": self.down,
        }

    async def close(self) -> None:
        """End all forwards."""
        while self._forwards:  # A client that is still there may change it meanwhile.
            _, (_, forward) = self._forwards.popitem()
            await forward.close()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _departed(self, node: NodeId) -> None:
        """End the forwards to a former member: a program that connects to one must hear so, and not wait.

        One to several members goes on as long as one of them is left.
        """
        for number, (view, forward) in tuple(self._forwards.items()):
            nodes = forward.nodes if isinstance(forward, TcpForward) else (forward.node,)
            if node in nodes and isinstance(forward, TcpForward) and forward.drop(node):
                names = view.node.split(",")
                name = names.pop(nodes.index(node))
                self._forwards[number] = msgspec.structs.replace(view, node=",".join(names)), forward
                log.warning("A210: forward %d goes on without %s, which is no member any more", number, name)
            elif node in nodes:
                del self._forwards[number]
                told = f"{view.protocol} {view.local} to {view.node}:{view.port}"
                log.warning("A210: forward %d has ended (%s): %s is no member any more", number, told, view.node)
                task = asyncio.get_running_loop().create_task(forward.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def status(self, params: dict[str, Any]) -> StatusView:
        """Return how every member stands."""
        decoded(params, _Nothing)
        return self._status()

    async def metrics(self, params: dict[str, Any]) -> MetricsView:
        """Return the same numbers as Prometheus reads them."""
        decoded(params, _Nothing)
        return MetricsView(text=self.metrics_text())

    def metrics_text(self) -> str:
        """Return the status in Prometheus's text format."""
        from atoll.node.metrics import exposition  # noqa: PLC0415 - a library that a node without metrics need not have.

        return exposition(self._status())

    def _status(self) -> StatusView:
        return status_view(self._node.around())

    async def why(self, params: dict[str, Any]) -> WhyView:
        """Explain the path from this node to a member and what is slow, or ask another member about one of its own."""
        asked = decoded(params, _Target)
        tag = tag_number(asked.tag)
        source = self._node.control.group.own.name if asked.source is None else asked.source
        target = self._find(asked.target, or_self=source != self._node.control.group.own.name)
        if asked.target == source:
            raise UserError(
                "A212", f"there is no path from {source} to itself", where=self._others(), fix="name two members"
            )
        if source != self._node.control.group.own.name:
            member = self._find(source)
            report = self._node.control.mesh.peer_report(member, self._node.around().now_ns)
            standing = "no session with it" if report is None else f"it is {report.state}: {report.why}"
            question = Asked(source, target, asked.target, asked.tag, standing)
            told = await ask_why(self._node.stack.streams, member, question)
            return told if not asked.port else _without_port(told, asked)
        view = await self._why(target, tag, partial(self._diagnostics.diagnose, target, tag, asked.port))
        if view is None:
            raise pathless(source, asked.target)
        return view

    async def _why(self, target: NodeId, tag: int, diagnose: Callable[[], _Diagnosing]) -> WhyView | None:
        """Return why packets go the way they go, and what is slow; None: there is no path."""
        if why_view(self._node.around(), target, tag) is None:
            return None
        diagnosis = await diagnose()
        view = why_view(self._node.around(), target, tag)  # As of now: what was asked for may have changed it.
        return None if view is None else msgspec.structs.replace(view, diagnosis=diagnosis)

    async def can(self, params: dict[str, Any]) -> CanView:
        """Say whether one machine may reach a port of another, by the rules of the latter, which is asked."""
        asked = decoded(params, _Can)
        if asked.protocol not in {"tcp", "udp"}:
            raise UserError("A501", f"no protocol {asked.protocol!r}", fix="use tcp or udp")
        source = self._node.book().find(asked.source)
        if isinstance(source, Missing):
            raise UserError(
                "A210", f"the group has no machine {asked.source!r}", where=self._others(), fix="see: atoll status"
            )
        target = self._find(asked.target, or_self=True)
        if target == self._node.control.group.own.node:
            return self._judged(asked.source, asked.protocol, asked.port)
        report = self._node.control.mesh.peer_report(target, self._node.around().now_ns)
        standing = "no session with it" if report is None else f"it is {report.state}: {report.why}"
        question = Asked(asked.target, source, asked.source, asked.protocol, standing)
        return await ask_can(self._node.stack.streams, target, question, asked.port)

    def _judged(self, source: str, protocol: str, port: int) -> CanView:
        verdict, rules = self._node.judged(source, protocol, port)
        rule = verdict.rule
        return CanView(
            source=source,
            target=self._node.control.group.own.name,
            protocol=protocol,
            port=port,
            allowed=verdict.allowed,
            rule="" if rule is None else rule.text,
            line="" if rule is None else rules.place_of(rule),
        )

    def _permitted(self, source: NodeId, protocol: str, port: int) -> CanView | Failure:
        """Answer another member that asks who may reach us."""
        book = self._node.book()
        if protocol not in {"tcp", "udp"}:
            return Failure("question")
        if not any(source == node for node in (*(m.node for m in book.members), *(node for _, node in book.guests))):
            return Failure("target")
        return self._judged(book.called(source), protocol, port)

    async def rules(self, params: dict[str, Any]) -> Done:
        """Take other rules, at once and for later."""
        self._node.change_rules(decoded(params, _Rules).rules)
        return Done()

    async def observe(self, params: dict[str, Any]) -> Done:
        """Take what a program measured of components of its own."""
        now_ns, vitals = self._node.plan.clock.monotonic_ns(), self._node.senses.vitals
        for one in decoded(params, _Samples).samples:
            latency_s, amount = -1 if one.latency_s is None else one.latency_s, one.amount or 1
            latency_ns = int(latency_s * SECOND_NS) if 0 <= latency_s <= LATENCY_S_MAX else -1
            amount = int(amount) if 1 <= amount <= AMOUNT_MAX else 1
            try:
                vitals.reported(one.component, latency_ns, amount, now_ns)
            except UsageError as error:
                raise UserError("A501", str(error), fix="see docs/reference/api.md") from error
        return Done()

    def _is_member(self, node: NodeId) -> bool:
        return self._node.control.group.roster.find(node) is not None

    async def _explained(self, target: NodeId, tag: str) -> WhyView | Failure:
        """Answer another member that asks why our packets go the way they go."""
        if tag not in TAG_NAMES:
            return Failure("question")
        if target == self._node.control.group.own.node or not self._is_member(target):
            return Failure("target")
        number = TAG_NAMES.index(tag)
        diagnose = partial(self._diagnostics.diagnose_for_member, target, number)
        return await self._why(target, number, diagnose) or Failure("path")

    async def ping(self, params: dict[str, Any]) -> AsyncIterator[msgspec.Struct]:
        """Send echoes through the overlay, one a second."""
        asked = decoded(params, _Ping)
        node, tag = self._find(asked.node), tag_number(asked.tag)
        if not 1 <= asked.count <= PING_COUNT_MAX:
            raise UserError("A501", f"a count of {asked.count}", fix=f"use 1 to {PING_COUNT_MAX}")
        return self._pings(asked, node, tag)

    async def _pings(self, asked: _Ping, node: NodeId, tag: int) -> AsyncIterator[msgspec.Struct]:
        loop_time = self._node.loop_time
        for sequence in range(1, asked.count + 1):
            began = loop_time()
            rtt_s = await self._node.stack.echo(node, tag, PING_TIMEOUT_S)
            explanation = self._node.control.mesh.explain(node, tag, self._node.around().now_ns)
            via = DIRECT if explanation is None else explanation.chosen
            yield PingView(
                name=asked.node,
                sequence=sequence,
                via=None if via == DIRECT else name_of(self._node.control, via),
                rtt_ms=None if rtt_s is None else rtt_s * 1000,
            )
            if sequence < asked.count:
                await self._node.pause(max(0.0, began + PING_INTERVAL_S - loop_time()))

    async def invite(self, params: dict[str, Any]) -> InviteView:
        """Make a single-use invitation, and answer when the disk has it, or say that it refused."""
        decoded(params, _Nothing)
        view = self.new_invitation()
        try:
            await self._node.confirm()  # Whoever gets the line must get in, also when this process dies now.
        except UserError as error:
            fix = f"{error.fix.partition(';')[0]}, then run `atoll invite` again"
            raise UserError(
                error.code, "no invitation was made: the disk did not take it", where=error.where, fix=fix
            ) from error
        return view

    def new_invitation(self) -> InviteView:
        """Make an invitation; its secret is in the answer and nowhere else. It counts when ``Node.confirm`` returns.

        Raises:
            UserError: A213, this node has no address that another machine could call.
        """
        node = self._node
        endpoints = _shown(node.endpoints)
        if not endpoints:
            raise UserError(
                "A213",
                "this node knows no address at which another machine could reach it",
                where="no route to other networks",
                fix="say it: atoll down; atoll up --advertise HOST:PORT",
            )
        secret = os.urandom(INVITE_SECRET_BYTES)
        expires_s = node.plan.clock.wall_ns() // SECOND_NS + INVITE_VALID_S
        node.feed(InviteIssued(invite_public_key(secret), expires_s))
        text = encode_invitation(
            Invitation(
                secret, node.plan.identity.public_key, endpoints, expires_s, node.plan.group[:GROUP_PREFIX_BYTES]
            )
        )
        return InviteView(invite=text, valid_s=INVITE_VALID_S)

    async def remove(self, params: dict[str, Any]) -> Done:
        """Remove a member from the group for good, and answer when the disk has it, or say that it refused."""
        self._node.feed(RemoveAsked(self._find(decoded(params, _NodeName).node, or_self=True)))
        await self._node.confirm()
        return Done()

    async def forward_add(self, params: dict[str, Any]) -> ForwardView:
        """Make a local port that comes out at a member, or at each that a program names (socks)."""
        asked = decoded(params, _Forward)
        if len(self._forwards) >= FORWARDS_MAX:
            raise UserError("A499", f"there are {FORWARDS_MAX} forwards already", fix="end one: atoll forward rm ID")
        tag = tag_number(asked.tag)
        host, port = parse_endpoint(asked.local)
        forward: TcpForward | UdpForward | Proxy
        match asked.protocol:
            case "socks":
                _check_proxy(asked)
                forward = self._node.stack.proxy(self._node.book, tag)
            case "tcp":
                nodes, order = self._targets(asked), partial(self._ranked, asked.port)
                forward = self._node.stack.tcp_forward(nodes, asked.port, tag, order)
            case "udp":
                if "," in asked.node:
                    raise UserError("A501", "a udp forward leads to one member", fix="make one forward for each member")
                (node,) = self._targets(asked)
                forward = self._node.stack.udp_forward(node, asked.port, tag)
            case _:
                raise UserError("A501", f"no protocol {asked.protocol!r}", fix="use tcp, udp or socks")
        bound_host, bound_port = await forward.start(host, port)
        local = f"[{bound_host}]:{bound_port}" if ":" in bound_host else f"{bound_host}:{bound_port}"
        view = ForwardView(
            id=self._next_id,
            protocol=asked.protocol,
            local=local,
            node=asked.node,
            port=asked.port,
            tag=asked.tag,
            connections=0,
        )
        self._forwards[view.id] = (view, forward)
        self._next_id += 1
        return view

    def _ranked(self, port: int, nodes: tuple[NodeId, ...]) -> Sequence[NodeId]:
        """Return in which order a new connection tries members, as they stand now."""
        return ranked(self._node.control, nodes, port, self._node.plan.clock.monotonic_ns())

    def _targets(self, asked: _Forward) -> tuple[NodeId, ...]:
        """Return the members that a forward leads to, in the order in which they were named."""
        if asked.anyone or not asked.node or not asked.port:
            raise UserError(
                "A501",
                f"a {asked.protocol} forward has a node and a port from 1, and no anyone",
                fix="see docs/reference/api.md",
            )
        names = asked.node.split(",")
        if len(names) > TARGETS_MAX:
            raise UserError("A501", f"a forward to {len(names)} members", fix=f"name at most {TARGETS_MAX}")
        book, nodes = self._node.book(), dict[NodeId, str]()
        for name in names:
            node = book.locate(name)
            if isinstance(node, Missing):
                raise UserError(
                    "A210", f"the group has no member {name!r}", where=self._others(), fix="see: atoll status"
                )
            if node in nodes:
                raise UserError("A501", f"{nodes[node]} and {name} are the same member", fix="name each member once")
            nodes[node] = name
        return tuple(nodes)

    async def forward_list(self, params: dict[str, Any]) -> Answer:
        """List the forwards, oldest first."""
        decoded(params, _Nothing)
        return tuple(
            msgspec.structs.replace(
                view,
                connections=forward.connections,
                carrier=forward.carrier if isinstance(forward, TcpForward) else "",
            )
            for view, forward in self._forwards.values()
        )

    async def forward_remove(self, params: dict[str, Any]) -> Done:
        """End a forward."""
        number = decoded(params, _Id).id
        found = self._forwards.pop(number, None)
        if found is None:
            raise UserError("A407", f"there is no forward {number}", fix="see: atoll forward list")
        await found[1].close()
        return Done()

    async def private(self, params: dict[str, Any]) -> DoorView:
        """Return how a program of this user enters the node's private network; give it a tag if it wants one."""
        asked = decoded(params, _Private)
        tag = None if asked.tag is None else tag_number(asked.tag)
        door = await self._node.private_door()
        mark = "" if tag is None else self._node.tag_program((asked.pid, asked.born), tag)
        if door is None:
            return DoorView(pid=0, user=0, net=0, resolver="", search="", mark=mark)
        return DoorView(
            pid=door.pid, user=door.user, net=door.net, resolver=door.resolver, search=door.search, mark=mark
        )

    async def _environment(self, verb: str, params: dict[str, Any]) -> msgspec.Raw:
        """Have the server of environments do something; it checks the parameters."""
        return msgspec.Raw(await self._node.environments.command(verb, msgspec.json.encode(params)))

    async def down(self, params: dict[str, Any]) -> Done:
        """End the node; the answer leaves first."""
        decoded(params, _Nothing)
        self._node.end_soon()
        return Done()

    def _find(self, name: str, *, or_self: bool = False) -> NodeId:
        group = self._node.control.group
        for member in group.roster.members():
            if member.name == name and (or_self or member.node != group.own.node):
                return member.node
        if name == group.own.name:
            raise UserError("A212", f"{name} is this node itself", where=self._others(), fix="name another member")
        raise UserError("A210", f"the group has no member {name!r}", where=self._others(), fix="see: atoll status")

    def _others(self) -> str:
        group = self._node.control.group
        names = sorted(member.name for member in group.roster.members() if member.node != group.own.node)
        return f"other members: {', '.join(names) or 'none yet'}"


def _without_port(view: WhyView, asked: _Target) -> WhyView:
    """Say of another member's answer that it says nothing of the port: only who may reach it may hear of it."""
    if view.diagnosis is None:
        return view
    note = f"port {asked.port} of {asked.target}: ask on {view.source}: atoll why {asked.target}:{asked.port}"
    told = msgspec.structs.replace(view.diagnosis, unknown=(*view.diagnosis.unknown, note))
    return msgspec.structs.replace(view, diagnosis=told)


def _shown(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Return the endpoints that go into an invitation, best first; one over TCP is among them if there is any."""
    plain = [one for one in endpoints if not is_tcp(one)]
    carried = [one for one in endpoints if is_tcp(one)]
    return (*plain[: INVITE_ENDPOINTS_MAX - bool(carried)], *carried[:1])


def _check_proxy(asked: _Forward) -> None:
    """Refuse a proxy that would open the group to other machines without that being said.

    Raises:
        UserError: A434; A501 for what is no proxy at all.
    """
    if asked.node or asked.port:
        raise UserError("A501", "a socks forward has no node and no port", fix="see docs/reference/api.md")
    host, _ = parse_address(asked.local)  # Numeric: what a name leads to is not decided here.
    if not asked.anyone and not ipaddress.ip_address(host).is_loopback:
        raise UserError(
            "A434",
            f"whoever reaches {asked.local} could use this proxy, and reach every member through it",
            where=f"{host} is not a loopback address",
            fix="listen on 127.0.0.1, or say that you mean it: --anyone",
        )
