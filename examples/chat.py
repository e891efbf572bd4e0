# SPDX-License-Identifier: Apache-2.0
"""A chat: rooms that remember, members who get what they have missed, and rooms that move to where their members are.

Try it::

    atoll run examples/chat.py --name lobby
    python examples/chat.py lobby ann            # Type lines; end with Ctrl-D. Next time you get what you have missed.
    atoll env call lobby Open name=side          # A room inside the room; it moves with it. Its name is lobby/side.
    python examples/chat.py lobby --follow       # Moves the room to the node of most members whenever that changes.
"""

import asyncio
import contextlib
import sys

import msgspec

import atoll
from atoll.base.errors import UserError
from atoll.client import RemoteEnvironment

HERE_S = 10.0  # Members say so often that they are here. Who is silent for three times as long has gone.
KEPT = 1_000  # Messages that a room remembers.


class Join(atoll.Tuple):  # Gives Welcome.
    who: str
    node: str = ""


class Welcome(atoll.Tuple):  # Who is here, and what was said since you left.
    members: list[str]
    missed: list["Said"]


class Say(atoll.Tuple):  # Gives what was Said, or a failure: stranger.
    who: str
    text: str


class Said(atoll.Tuple):  # Told to all members, and to the one who said it.
    number: int
    who: str
    text: str


class Here(atoll.Tuple):  # Renews the lease of your place, or ends it, as the timer does; and says what you have seen.
    who: str
    seen: int = 0
    leaves: bool = False


class Open(atoll.Tuple):  # Open a room inside this one.
    name: str


class Where(atoll.Tuple):  # Ask with it, and get it filled in: members by node, and where the room moved last.
    members: dict[str, int] = {}
    room: str = ""


class Member(msgspec.Struct):
    ref: atoll.Ref
    node: str
    seen: int
    timer: int = 0  # Of the lease; 0: not here.


class Room(atoll.App):
    members: dict[str, Member] = {}
    said: list[Said] = []
    last: int = 0
    node: str = ""

    @atoll.on(Join)
    def join(self, join: Join, ctx: atoll.Context) -> Welcome:
        old = self.members.get(join.who)
        seen = self.last if old is None else old.seen  # Who is new gets what is said from now on.
        self.members[join.who] = Member(ctx.sender or ctx.me, join.node, seen, 0 if old is None else old.timer)
        self.here(Here(join.who), ctx)
        present = [who for who, member in self.members.items() if member.timer]
        return Welcome(present, [said for said in self.said if said.number > seen])

    @atoll.on(Say)
    def say(self, say: Say, ctx: atoll.Context) -> atoll.Tuple:
        if say.who not in self.members:
            return atoll.Failure("stranger", f"{say.who} has not joined")
        self.last += 1
        said = Said(self.last, say.who, say.text)
        self.said = [*self.said[1 - KEPT :], said]
        for member in self.members.values():
            if member.timer:
                with contextlib.suppress(atoll.QueueFull):  # Who reads that slowly gets it on return.
                    ctx.send(member.ref, said)
        return said

    @atoll.on(Here)
    def here(self, here: Here, ctx: atoll.Context) -> None:
        if (member := self.members.get(here.who)) is not None:
            ctx.cancel(member.timer)
            member.timer = 0 if here.leaves else ctx.after(3 * HERE_S, Here(here.who, leaves=True))
            member.seen = max(member.seen, here.seen)

    @atoll.on(Open)
    def open(self, room: Open, ctx: atoll.Context) -> None:
        ctx.spawn(Room, room.name)

    @atoll.on(atoll.Moved)
    def moved(self, moved: atoll.Moved, _: atoll.Context) -> None:
        self.node = moved.node

    @atoll.on(Where)
    def where(self, _where: Where, _ctx: atoll.Context) -> Where:
        nodes = [member.node for member in self.members.values() if member.timer]
        return Where({node: nodes.count(node) for node in nodes}, self.node)


async def chat(room: RemoteEnvironment, who: str, node: str) -> None:
    welcome = await room.call(Join(who, node), Welcome)
    print("here:", ", ".join(welcome.members), flush=True)
    tasks = [asyncio.create_task(listen(room, who, welcome.missed)), asyncio.create_task(stay(room, who))]
    while line := await asyncio.to_thread(sys.stdin.readline):
        await room.call(Say(who, line.strip()), Said)
    await room.send(Here(who, leaves=True))
    for task in tasks:
        task.cancel()


async def listen(room: RemoteEnvironment, who: str, missed: list[Said]) -> None:
    for said in missed:
        print(f"{said.who}: {said.text}  (while you were away)", flush=True)
    await room.send(Here(who, missed[-1].number if missed else 0))
    async for said in room.events(Said):
        print(f"{said.who}: {said.text}", flush=True)
        await room.send(Here(who, said.number))


async def stay(room: RemoteEnvironment, who: str) -> None:
    while True:
        await asyncio.sleep(HERE_S)
        await room.send(Here(who))


async def main(name: str, who: str) -> None:
    async with atoll.join() as group:
        room = await group.environment(name)
        while who == "--follow":
            places = await room.call(Where(), Where)
            most = max(places.members, key=lambda node: places.members[node], default="")
            if most not in {"", places.room}:
                with contextlib.suppress(UserError):  # Not now: it is tried again.
                    await group.move(name, most)
            await asyncio.sleep(HERE_S)
        await chat(room, who, group.node)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
