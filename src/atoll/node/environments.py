# SPDX-License-Identifier: Apache-2.0
"""The environments of a node, as control sees them: two processes that it starts, and large messages that it carries.

They are started when somebody wants them: a command, another node, or environments that are there from before. A node
that runs none pays nothing. Control never reads what it carries; it adds who said it, which the session has proved.
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final, final

from atoll.base.errors import LimitError, LinkError, UserError, WireError
from atoll.base.ids import GroupId, NodeId
from atoll.conduit.datagrams import DATAGRAM_PORT
from atoll.conduit.stream import BrokenStreamError, Kind, Reason, Service, Stream
from atoll.conduit.streams import StreamHost
from atoll.device.nic.client import NicClient, message_pair
from atoll.device.nic.messages import AttachPort
from atoll.domain.frames import Frames
from atoll.domain.launch import Ends, EnvironmentsHandle, launch_environments
from atoll.domain.messages import Alive, MemberSeen
from atoll.domain.recorder.launch import Owner, RecorderHandle, launch_recorder
from atoll.env.limits import MESSAGE_BYTES_MAX
from atoll.node.limits import CARRIED_BYTES_MAX, ENVIRONMENTS_RETRY_S, LINK_IDLE_S, PORT_SOCKET_BYTES

__all__ = ["Environments"]

log: Final = logging.getLogger("atoll.node")

_LENGTH: Final = Struct("<I")
_READ_BYTES: Final = 256 * 1024
KEPT_NAME: Final = "envs"  # Of the recorder, in the state directory.


@final
class _Link:
    """What goes to one other node, over a stream that is there as long as there is something to say."""

    def __init__(self, streams: StreamHost, node: NodeId, done: Callable[[NodeId], None]) -> None:
        self._streams, self._node, self._done = streams, node, done
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._news: Final = asyncio.Event()

    def put(self, payload: bytes) -> None:
        """Send this; it is dropped when too much waits already, and whoever sent it sends it again."""
        if self._bytes + len(payload) > CARRIED_BYTES_MAX:
            return
        self._queue.append(payload)
        self._bytes += len(payload)
        self._news.set()

    async def run(self) -> None:
        """Send what there is until there is nothing for LINK_IDLE_S, or the node cannot be reached."""
        stream: Stream | None = None
        try:
            stream = self._streams.open(self._node, 0, Service(Kind.ENVIRONMENTS))
            while True:
                async with asyncio.timeout(LINK_IDLE_S):
                    await self._news.wait()
                self._news.clear()
                frames: list[bytes] = []
                while self._queue:
                    payload = self._queue.popleft()
                    self._bytes -= len(payload)
                    frames += (_LENGTH.pack(len(payload)), payload)
                await stream.write(b"".join(frames))
        except (TimeoutError, BrokenStreamError, LimitError):
            pass  # What was lost is sent again by whoever misses an answer.
        finally:
            if stream is not None:
                stream.close()
            self._done(self._node)


@final
class Environments:
    """Starts, feeds and ends the two processes.

    Args:
        state: The node's state directory.
        name: The node's name.
        owner: The node, for the recorder's certificate.
        streams: To other nodes.
        spawn: Runs a task as long as the node lives.
        reaches: Says whether there is a session with a member now.
        group: The group, for addresses.
        nic: The packet device.
    """

    def __init__(
        self,
        state: Path,
        name: str,
        owner: Owner,
        streams: StreamHost,
        spawn: Callable[[Coroutine[None, None, None]], None],
        *,
        reaches: Callable[[NodeId], bool],
        group: GroupId,
        nic: NicClient,
    ) -> None:
        self._state, self._name, self._owner = state, name, owner
        self._streams, self._spawn, self._reaches = streams, spawn, reaches
        self._group, self._nic = group, nic
        self._port: socket.socket | None = None  # The packet device's end; it has a copy, and its successor gets one.
        self._recorder: RecorderHandle | None = None
        self._handle: EnvironmentsHandle | None = None
        self._links: dict[NodeId, _Link] = {}
        self._members: tuple[tuple[MemberSeen, ...], str] = ((), "")
        self._starting = asyncio.Lock()
        self._is_ending = False

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes whose work is this node's."""
        return tuple(one.pid for one in (self._recorder, self._handle) if one is not None)

    @property
    def alive(self) -> Alive:
        """What the server said last of itself; nothing runs, as long as there is none."""
        return Alive() if self._handle is None else self._handle.alive

    def begin(self) -> None:
        """Start them if there are environments from before."""
        if any((self._state / KEPT_NAME).glob("*")):
            self._spawn(self._begin())

    async def _begin(self) -> None:
        try:
            await self._ready()
        except UserError as error:
            log.warning("environments do not run: %s", error.where)
            await asyncio.sleep(ENVIRONMENTS_RETRY_S)
            self._again()

    async def _ready(self) -> EnvironmentsHandle:
        """Return the running server, started if need be.

        Raises:
            UserError: A611, it does not start.
        """
        async with self._starting:
            if self._is_ending:
                sentence = "environments do not run on this node now"
                raise UserError("A611", sentence, where="it is ending", fix="atoll up, and try again")
            if self._handle is None:
                try:
                    if self._recorder is None:
                        self._recorder = await launch_recorder(self._state, self._owner, on_lost=self._recorder_lost)
                    self._handle = await self._launched(self._recorder)
                except LinkError as error:
                    raise UserError(
                        "A611", "environments do not run on this node now", where=str(error), fix="see: atoll logs"
                    ) from error
                self._handle.members(*self._members)
            return self._handle

    async def _launched(self, recorder: RecorderHandle) -> EnvironmentsHandle:
        self._detach()
        try:
            theirs, self._port = message_pair()
        except OSError as error:
            raise LinkError(f"no connection to the packet device: {error.strerror}") from error
        for end in (theirs, self._port):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PORT_SOCKET_BYTES)
        try:
            ends = Ends(recorder.attach(), recorder.sealer, theirs, self._group)
        except LinkError:
            theirs.close()
            raise
        handle = await launch_environments(self._state, self._name, ends, self._tell, self._lost)
        self.attach()
        return handle

    def attach(self) -> None:
        """Have the packet device, which may have just started, carry what the server and others' say to each other."""
        if self._port is not None:
            with suppress(LinkError):  # It is being started again, and gets it then.
                self._nic.attach(AttachPort(DATAGRAM_PORT), self._port.fileno())

    def _detach(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            port.close()

    async def command(self, verb: str, params: bytes) -> bytes:
        """Have something done; return what came of it as JSON.

        Raises:
            UserError: It cannot be done.
            LimitError: Too many commands wait.
        """
        return await (await self._ready()).command(verb, params)

    def look(self) -> None:
        """See that the server of environments still turns; called every second."""
        if self._handle is not None:
            self._handle.look()

    def members(self, members: tuple[MemberSeen, ...], slow: str) -> None:
        """Tell who is in the group, and why this machine is slow (empty: it is not), if that has changed."""
        if (members, slow) != self._members:
            self._members = (members, slow)
            if self._handle is not None:
                self._handle.members(members, slow)

    async def stop(self) -> None:
        """End both, the server first. Twice is harmless."""
        self._is_ending = True
        handle, self._handle = self._handle, None
        recorder, self._recorder = self._recorder, None
        if handle is not None:
            await handle.stop()
        if recorder is not None:
            await recorder.stop()
        self._detach()

    # Other nodes.

    async def serve(self, stream: Stream, _: Service) -> None:
        """Take what another node's server says, until it ends.

        Raises:
            BrokenStreamError: The other node went away.
            WireError: It speaks nonsense.
        """
        try:
            await self._ready()
        except UserError:
            stream.refuse(Reason.NO_SERVICE)
            return
        stream.accept()
        frames = Frames(MESSAGE_BYTES_MAX)  # As long as a message may be: with who said it, it fits what is handed on.
        while data := await stream.read(_READ_BYTES):
            try:
                came = [*frames.feed(data)]
            except WireError:
                log.warning("the stream of %s is ended: it announced a message that is too long", stream.node.hex())
                raise
            for payload in came:
                if self._handle is not None:  # It may have been started anew since; what it misses is said again.
                    self._handle.from_node(stream.node, payload)

    def _tell(self, node: NodeId, payload: bytes) -> None:
        link = self._links.get(node)
        if link is None:
            if not self._reaches(node):
                return  # A handshake with who is not there yet would be tried again ever more rarely.
            link = self._links[node] = _Link(self._streams, node, self._unlink)
            self._spawn(link.run())
        link.put(payload)

    def _unlink(self, node: NodeId) -> None:
        self._links.pop(node, None)

    # Their deaths.

    def _lost(self) -> None:
        log.warning("the server of environments has ended; it is started again")
        self._handle = None
        self._spawn(self._restart())

    def _recorder_lost(self, reason: str) -> None:
        log.warning("the recorder has ended (%s); it is started again", reason)
        self._recorder = None  # The server of environments ends with it, and both are started again.

    async def _restart(self) -> None:
        await asyncio.sleep(ENVIRONMENTS_RETRY_S)
        self._again()

    def _again(self) -> None:
        if not self._is_ending:
            self._spawn(self._begin())
