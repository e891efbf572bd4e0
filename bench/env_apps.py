# SPDX-License-Identifier: Apache-2.0
"""The applications that bench/env.py runs: some count, work, call, keep books; one does all that can be done."""

import bisect
from hashlib import sha256

import atoll

SPANS_MAX = 5_000  # Limit. Times of single calls that a caller keeps.
ROW_BYTES = 100


# Events as fast as they come.


class Ev(atoll.Tuple):
    text: str


class Count(atoll.App):
    n: int = 0
    keys: dict[str, int] = {}

    @atoll.on(Ev)
    def count(self, event: Ev, _: atoll.Context) -> None:
        self.n += 1
        key = event.text[0]
        self.keys[key] = self.keys.get(key, 0) + 1


class Work(atoll.App):
    """A handler that computes for a while: so many hashes."""

    loops: int = 0
    digest: bytes = b""

    @atoll.on(Ev)
    def work(self, event: Ev, _: atoll.Context) -> None:
        digest = self.digest + event.text.encode()
        for _number in range(self.loops):
            digest = sha256(digest).digest()
        self.digest = digest


# Operations between two environments.


class Ping(atoll.Tuple):
    sent_ns: int


class Pong(atoll.Tuple):
    sent_ns: int


class Go(atoll.Tuple):
    """Call somebody so often, with at most ``window`` calls on their way; answered by ``Gone`` at the end."""

    to: bytes
    count: int
    window: int


class More(atoll.Tuple):
    pass


class Gone(atoll.Tuple):
    ns: int
    failed: int
    spans_ns: list[int]


class Echo(atoll.App):
    n: int = 0

    @atoll.on(Ping)
    def ping(self, ping: Ping, _: atoll.Context) -> Pong:
        self.n += 1
        return Pong(ping.sent_ns)


class Caller(atoll.App):
    to: bytes = b""
    left: int = 0
    waiting: int = 0
    failed: int = 0
    began_ns: int = 0
    askers: list[atoll.Asker] = []
    spans_ns: list[int] = []

    @atoll.on(Go)
    def go(self, go: Go, ctx: atoll.Context) -> None:
        self.to, self.left, self.waiting, self.failed = go.to, go.count, 0, 0
        self.began_ns, self.spans_ns = ctx.now_ns, []
        asker = ctx.defer()
        self.askers = [] if asker is None else [asker]
        for _ in range(min(go.window, go.count)):
            self.more(More(), ctx)

    @atoll.on(More)
    def more(self, _: More, ctx: atoll.Context) -> None:
        """Call once more, if there is room; else when somebody answers, or soon."""
        if not self.left:
            return
        try:
            ctx.call(atoll.Ref(self.to), Ping(ctx.now_ns), then=Caller.answered)
        except atoll.QueueFull:
            if not self.waiting:
                ctx.after(0.001, More())
        else:
            self.left -= 1
            self.waiting += 1

    def answered(self, answer: atoll.Tuple, ctx: atoll.Context) -> None:
        self.waiting -= 1
        if not isinstance(answer, Pong):
            self.failed += 1
        elif len(self.spans_ns) < SPANS_MAX:
            self.spans_ns.append(ctx.now_ns - answer.sent_ns)
        self.more(More(), ctx)
        if not self.left and not self.waiting:
            for asker in self.askers:
                ctx.reply(Gone(ctx.now_ns - self.began_ns, self.failed, self.spans_ns), to=asker)


# Numbers that must come once and in order.


class Put(atoll.Tuple):
    lane: int
    number: int


class Taken(atoll.Tuple):
    number: int


class Ask(atoll.Tuple):
    pass


class Books(atoll.Tuple):
    lanes: dict[int, list[list[int]]]
    doubled: int
    disordered: int
    changes: int


class Ledger(atoll.App):
    """Keeps the numbers of each lane, and some state that is moved along.

    The set of numbers is kept as ranges without a gap inside, so that what is moved stays as large as it was begun.
    """

    rows_begun: int = 0
    rows: list[bytes] = []
    lanes: dict[int, list[list[int]]] = {}
    doubled: int = 0
    disordered: int = 0
    changes: int = 0

    @atoll.on(atoll.Started)
    def begin(self, _: atoll.Started, ctx: atoll.Context) -> None:
        self.rows = [ctx.random.randbytes(ROW_BYTES) for _ in range(self.rows_begun)]

    @atoll.on(Put)
    def put(self, put: Put, _: atoll.Context) -> Taken:
        ranges = self.lanes.setdefault(put.lane, [])
        at = bisect.bisect_right(ranges, put.number, key=lambda one: one[0]) - 1
        if at >= 0 and put.number <= ranges[at][1]:
            self.doubled += 1
            return Taken(put.number)
        self.disordered += at != len(ranges) - 1
        if at >= 0 and put.number == ranges[at][1] + 1:
            ranges[at][1] = put.number
        else:
            ranges.insert(at + 1, [put.number, put.number])
        if self.rows:
            row = put.number % len(self.rows)
            self.rows[row] = self.rows[row][1:] + self.rows[row][:1]
        return Taken(put.number)

    @atoll.on(Ask)
    def ask(self, _: Ask, ctx: atoll.Context) -> Books:
        del ctx
        return Books(self.lanes, self.doubled, self.disordered, self.changes)

    @atoll.on(atoll.Moved, atoll.Restored)
    def changed(self, _: atoll.Tuple, ctx: atoll.Context) -> None:
        del ctx
        self.changes += 1


# Everything that a handler can do, as a seed says.


class Act(atoll.Tuple):
    kind: str
    n: int


class Due(atoll.Tuple):
    n: int


class Slow(atoll.Tuple):
    n: int


class Told(atoll.Tuple):
    n: int


class Inner(atoll.App):
    total: int = 0

    @atoll.on(Act)
    def act(self, act: Act, ctx: atoll.Context) -> Told:
        self.total += act.n
        if act.kind == "deep-fail":
            message = f"no {act.n}"
            raise ValueError(message)
        return Told(self.total ^ ctx.random.getrandbits(16))

    @atoll.on(Told)
    def told(self, told: Told, _: atoll.Context) -> None:
        self.total += told.n


class Wild(atoll.App):
    total: int = 0
    counts: dict[str, int] = {}
    timers: list[int] = []
    askers: list[atoll.Asker] = []
    ring: list[bytes] = []

    @atoll.on(Act)
    def act(self, act: Act, ctx: atoll.Context) -> Told | None:
        self.counts[act.kind] = self.counts.get(act.kind, 0) + 1
        self.total += act.n
        match act.kind:
            case "reply":
                return Told(self.total)
            case "draw":
                self.ring = [*self.ring[-15:], ctx.token(8)]
                return Told(ctx.random.getrandbits(32))
            case "fail":
                ctx.log("this is undone")
                self.ring.clear()
                message = f"no {act.n}"
                raise ValueError(message)
            case "timer":
                self.timers = [*self.timers[-31:], ctx.after(ctx.random.random() / 10, Due(act.n))]
            case "cancel":
                if self.timers:
                    ctx.cancel(self.timers.pop())
            case "call":
                if ctx.sender is not None:
                    ctx.call(ctx.sender, Told(act.n), timeout_s=0.2, then=Wild.answered)
            case "defer":
                asker = ctx.defer()
                self.askers += [] if asker is None else [asker]
            case "answer":
                for asker in self.askers:
                    ctx.reply(Told(act.n), to=asker)
                self.askers.clear()
            case "nested" | "deep-fail":
                child = ctx.spawn(Inner, f"inner-{act.n % 5}")
                ctx.call(child, act, then=Wild.answered)
            case "end":
                ctx.end(f"inner-{act.n % 5}")
            case "space":
                ctx.put(Told(act.n))
                if ctx.count(Told) > 40:
                    self.total += sum(one.n for one in ctx.take(Told, limit=30))
            case _:
                ctx.log(f"{act.kind} {act.n}")
        return None

    def answered(self, answer: atoll.Tuple, ctx: atoll.Context) -> None:
        self.total += answer.n if isinstance(answer, Told) else 1
        self.total ^= ctx.now_ns & 0xFFFF

    @atoll.on(Due)
    def due(self, due: Due, ctx: atoll.Context) -> None:
        if due.n % 7 == 0:
            message = "a timer that fails"
            raise RuntimeError(message)
        self.total += due.n
        ctx.log(f"due {due.n}")

    @atoll.on(Slow)
    async def slow(self, slow: Slow, ctx: atoll.Context) -> Told:
        await ctx.sleep(0.01)
        self.total += slow.n
        return Told(self.total)
