# SPDX-License-Identifier: Apache-2.0
"""A durable queue of jobs: priorities, delays, leases, retries that wait longer each time, dead letters, no doubles.

Try it::

    atoll run examples/jobs.py
    atoll env call jobs Put payload=hello key=first priority=5
    python examples/jobs.py                    # A worker. Start as many as you like, and kill them when you like.
    atoll env call jobs Look number=1
"""

import asyncio
import heapq

from msgspec.structs import replace

import atoll

FINISHED_KEPT = 10_000  # Jobs that are over and can still be asked for; so long their keys are known, too.


class Put(atoll.Tuple):  # Add a job. Gives a Job: the one that has this key already, if there is one.
    payload: str
    key: str = ""
    priority: int = 0
    delay_s: float = 0.0
    lease_s: float = 30.0
    attempts: int = 5


class Take(atoll.Tuple):  # Ask for work. Gives a Job whose lease has begun, or a failure when none comes in time: idle.
    wait_s: float = 20.0


class Report(atoll.Tuple):  # Say how a job went. Gives the Job, or a failure, late: somebody else may have it by now.
    number: int
    attempt: int
    is_done: bool
    said: str = ""


class Look(atoll.Tuple):  # Ask for a job. Gives a Job, or a failure: unknown.
    number: int


class Job(atoll.Tuple):
    number: int
    put: Put
    state: str = "later"  # Later, ready, leased, done or dead.
    attempt: int = 0
    said: str = ""  # The result, or what went wrong last.


class Due(atoll.Tuple):  # A timer: a worker has waited long enough (idle), or a delay or a lease of a job is over.
    state: str
    number: int
    attempt: int = 0


class Jobs(atoll.App):
    jobs: dict[int, Job] = {}
    keys: dict[str, int] = {}
    ready: list[tuple[int, int]] = []  # A heap: the highest priority first, then the oldest.
    idle: dict[int, atoll.Asker] = {}  # Workers that wait, longest first.
    finished: dict[int, None] = {}
    last: int = 0

    @atoll.on(Put)
    def put(self, put: Put, ctx: atoll.Context) -> atoll.Tuple:
        if put.key in self.keys:
            return self.jobs[self.keys[put.key]]
        self.last += 1
        if put.key:
            self.keys[put.key] = self.last
        self._later(Job(self.last, put), put.delay_s, ctx)
        return self.jobs[self.last]

    @atoll.on(Take)
    def take(self, take: Take, ctx: atoll.Context) -> None:
        if (asker := ctx.defer()) is not None:
            self.idle[ctx.event_number] = asker
            ctx.after(take.wait_s, Due("idle", ctx.event_number))
            self._serve(ctx)

    @atoll.on(Report)
    def report(self, report: Report, ctx: atoll.Context) -> atoll.Tuple:
        job = self.jobs.get(report.number)
        if job is None or (job.state, job.attempt) != ("leased", report.attempt):
            return atoll.Failure("late", f"job {report.number} is not yours any more")
        if report.is_done:
            self._finish(job, "done", report.said)
        else:
            self._retry(job, report.said, ctx)
        return self.jobs[report.number]

    @atoll.on(Look)
    def look(self, look: Look, _: atoll.Context) -> atoll.Tuple:
        return self.jobs.get(look.number) or atoll.Failure("unknown", f"there is no job {look.number}")

    @atoll.on(Due)
    def due(self, due: Due, ctx: atoll.Context) -> None:
        job = self.jobs.get(due.number)
        if due.state == "idle" and (asker := self.idle.pop(due.number, None)) is not None:
            ctx.reply(atoll.Failure("idle"), to=asker)
        elif job is not None and (job.state, job.attempt) == (due.state, due.attempt):
            if job.state == "leased":
                self._retry(job, "its worker did not report", ctx)
            else:
                self.jobs[job.number] = replace(job, state="ready")
                heapq.heappush(self.ready, (-job.put.priority, job.number))
                self._serve(ctx)

    def _later(self, job: Job, delay_s: float, ctx: atoll.Context) -> None:
        self.jobs[job.number] = replace(job, state="later")
        if delay_s:
            ctx.after(delay_s, Due("later", job.number, job.attempt))
        else:
            self.due(Due("later", job.number, job.attempt), ctx)

    def _serve(self, ctx: atoll.Context) -> None:
        while self.ready and self.idle:
            _, number = heapq.heappop(self.ready)
            job = self.jobs[number]
            job = self.jobs[number] = replace(job, state="leased", attempt=job.attempt + 1)
            ctx.after(job.put.lease_s, Due("leased", number, job.attempt))
            ctx.reply(job, to=self.idle.pop(next(iter(self.idle))))

    def _retry(self, job: Job, said: str, ctx: atoll.Context) -> None:
        if job.attempt >= job.put.attempts:
            self._finish(job, "dead", said)
        else:
            self._later(replace(job, said=said), ctx.random.uniform(0.5, 1.0) * 2**job.attempt, ctx)

    def _finish(self, job: Job, state: str, said: str) -> None:
        self.jobs[job.number] = replace(job, state=state, said=said)
        self.finished[job.number] = None
        if len(self.finished) > FINISHED_KEPT:
            old = self.jobs.pop(next(iter(self.finished)))
            del self.finished[old.number]
            self.keys.pop(old.put.key, None)


async def work() -> None:
    async with atoll.join() as group:
        jobs = await group.environment("jobs")
        while True:
            try:
                job = await jobs.call(Take(), Job)  # Here a job is a text, and its result that text in capitals.
                print(await jobs.call(Report(job.number, job.attempt, is_done=True, said=job.put.payload.upper()), Job))
            except atoll.CallError as error:  # Nothing to do, or out of reach.
                print(error)
                await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(work())
