# SPDX-License-Identifier: Apache-2.0
"""The queue of jobs: order, delays, leases, retries, dead letters, no doubles."""

import pytest
from jobs import Job, Jobs, Look, Put, Report, Take

import atoll
from atoll.env.stage import Actor, Client, Stage


def done(worker: Client, jobs: Actor[Jobs]) -> str:
    """Do the next job; return what it was."""
    job = worker.call(jobs, Take(), Job)
    worker.call(jobs, Report(job.number, job.attempt, is_done=True, said="ok"), Job)
    return job.put.payload


def test_the_highest_priority_goes_first_then_the_oldest() -> None:
    with Stage() as stage:
        jobs, client = stage.run(Jobs), stage.client()
        for payload, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
            client.call(jobs, Put(payload, priority=priority), Job)
        assert [done(client, jobs) for _ in range(4)] == ["b", "d", "a", "c"]
        assert client.call(jobs, Look(1), Job).said == "ok"
        assert client.call(jobs, Look(9)) == atoll.Failure("unknown", "there is no job 9")


def test_a_key_is_one_job_however_often_it_is_put() -> None:
    with Stage() as stage:
        jobs, client = stage.run(Jobs), stage.client()
        first = client.call(jobs, Put("a", key="k"), Job)
        jobs.crash()
        assert client.call(jobs, Put("other", key="k"), Job) == first
        assert done(client, jobs) == "a"
        assert client.call(jobs, Put("a", key="k"), Job).state == "done"
        assert client.call(jobs, Take(), timeout_s=30) == atoll.Failure("idle")


def test_a_worker_that_waits_gets_a_job_when_its_delay_is_over() -> None:
    with Stage() as stage:
        jobs, client, worker = stage.run(Jobs), stage.client(), stage.client()
        asked = worker.ask(jobs, Take())
        client.call(jobs, Put("a", delay_s=5), Job)
        assert worker.answer(asked) is None
        stage.advance(5)
        job = worker.answer(asked)
        assert isinstance(job, Job)
        assert job.state == "leased"


def test_what_a_dead_worker_had_goes_to_another() -> None:
    with Stage() as stage:
        jobs, client, dead, worker = stage.run(Jobs), stage.client(), stage.client(), stage.client()
        client.call(jobs, Put("a", lease_s=10), Job)
        lost = dead.call(jobs, Take(), Job)
        stage.advance(9)
        assert client.call(jobs, Look(1), Job).state == "leased"
        jobs.crash()
        again = worker.call(jobs, Take(), Job)
        assert (again.number, again.attempt, again.said) == (1, 2, "its worker did not report")
        late = dead.call(jobs, Report(lost.number, lost.attempt, is_done=True))
        assert late == atoll.Failure("late", "job 1 is not yours any more")
        assert worker.call(jobs, Report(1, 2, is_done=True), Job).state == "done"
        stage.advance(60)  # The timer of the second lease comes too late.
        assert client.call(jobs, Look(1), Job).state == "done"


def test_what_fails_again_and_again_is_dead() -> None:
    with Stage() as stage:
        jobs, client = stage.run(Jobs), stage.client()
        client.call(jobs, Put("a", attempts=3), Job)
        waited: list[float] = []
        for _ in range(3):
            began = stage.now()
            job = client.call(jobs, Take(), Job)
            waited.append((stage.now() - began).total_seconds())
            client.call(jobs, Report(job.number, job.attempt, is_done=False, said="no"), Job)
        assert waited[0] == 0
        assert 1 <= waited[1] <= 2 <= waited[2] <= 4
        dead = client.call(jobs, Look(1), Job)
        assert (dead.state, dead.said) == ("dead", "no")


def test_who_sends_a_take_wants_no_answer_and_gets_nothing() -> None:
    with Stage() as stage:
        jobs, client = stage.run(Jobs), stage.client()
        client.send(jobs, Take())
        assert client.call(jobs, Put("a"), Job).state == "ready"


def test_what_is_finished_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.FINISHED_KEPT", 1)
    with Stage() as stage:
        jobs, client = stage.run(Jobs), stage.client()
        client.call(jobs, Put("a", key="k"), Job)
        client.call(jobs, Put("b"), Job)
        assert [done(client, jobs) for _ in range(2)] == ["a", "b"]
        assert isinstance(client.call(jobs, Look(1)), atoll.Failure)
        assert client.call(jobs, Put("a", key="k"), Job).number == 3
