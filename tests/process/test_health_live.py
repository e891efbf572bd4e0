# SPDX-License-Identifier: Apache-2.0
"""What a program without a node reports, from several threads, and from files that are watched."""

import io
import math
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from atoll import health
from atoll.adapt import Watched
from atoll.health import live

fsspec_open: Any = import_module("fsspec").open  # It has no types.
pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_watch", health.Watch())


def samples() -> dict[str, int]:
    return {standing.component: standing.samples for standing in health.standings()}


def test_what_is_reported_is_known() -> None:
    for _ in range(100):
        health.observe("api:billing", 0.010, 3)
    (standing,) = health.standings()
    assert (standing.component, standing.state, standing.samples) == ("api:billing", health.State.OK, 100)
    assert standing.newest_ns == pytest.approx(10_000_000, rel=0.01)
    assert [change.after for change in health.changes()] == [health.State.OK]
    assert health.changes() == []
    assert health.shunned("api") == []


def test_what_cannot_be_is_not_taken() -> None:
    for latency_s in (math.nan, -1.0, math.inf, -math.inf, 1e9):
        health.observe("api:billing", latency_s)
    for amount in (math.nan, -1, 0, math.inf, 1e300):
        health.observe("api:billing", 0.01, amount)
    assert samples() == {"api:billing": 5}


def test_a_block_that_raises_is_not_reported() -> None:
    with health.timed("api:billing"):
        pass
    with pytest.raises(KeyError), health.timed("api:billing"):
        raise KeyError
    assert samples() == {"api:billing": 1}


def test_threads_lose_no_sample() -> None:
    def report() -> None:
        for _ in range(2000):
            health.observe("api:billing", 0.01)

    threads = [threading.Thread(target=report) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples() == {"api:billing": 8000}


def test_a_file_reports_what_it_does_and_stays_a_file(tmp_path: Path) -> None:
    with Watched(tmp_path.joinpath("file").open("w+b"), "disk:data") as file:
        assert file.write(b"one\ntwo\n") == 8
        file.flush()
        assert file.seek(0) == 0
        assert file.read(4) == b"one\n"
        buffer = bytearray(4)
        assert file.readinto(buffer) == 4
        assert buffer == b"two\n"
        file.seek(0)
        assert list(file) == [b"one\n", b"two\n"]
        assert file.name == str(tmp_path / "file")
    assert file.closed
    assert samples() == {"disk.write:data": 1, "disk.flush:data": 1, "disk.read:data": 2}


@pytest.mark.parametrize("where", ["memory://bucket/object", "file://{}/object"])
def test_an_object_that_fsspec_opens_reports_as_well(tmp_path: Path, where: str) -> None:
    url = where.format(tmp_path)
    with Watched(fsspec_open(url, "wb").open(), "far:bucket") as file:
        assert file.write(b"x" * 100_000) == 100_000
        file.flush()
    with Watched(fsspec_open(url, "rb").open(), "far:bucket") as file:
        assert file.read(10) == b"x" * 10
        buffer = bytearray(20)
        assert file.readinto(buffer) == 20
        assert len(file.read()) == 99_970
    assert samples() == {"far.write:bucket": 1, "far.flush:bucket": 1, "far.read:bucket": 3}


def test_anything_with_the_methods_of_a_file_will_do() -> None:
    file = Watched(io.BytesIO(b"abc"), "far:bucket")
    assert file.read() == b"abc"
    assert samples() == {"far.read:bucket": 1}
