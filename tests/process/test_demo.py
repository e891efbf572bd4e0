# SPDX-License-Identifier: Apache-2.0
"""``atoll demo`` as the acceptance test: five real nodes on the emulator, a seeded script, a verdict.

One run takes 70 s, that without faults at twice the speed 45 s.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from atoll.lab.demo import DemoReport
from atoll.lab.kept import AGAIN_S_MAX, PAUSE_S_MAX, KeepReport
from atoll.lab.scenario import Affliction, phases
from atoll.lab.slowness import HEARTBEAT_S

pytestmark = [pytest.mark.process, pytest.mark.timeout(200)]

SEED = 7
DEMO_S = 170
MARK = "ATOLL_TEST_MARK"
PLAY = "import sys; from atoll.lab.twin import play; sys.stdout.write(play(int(sys.argv[1])).trace)"


def run(*command: str, hash_seed: str = "random", mark: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, MARK: mark}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=DEMO_S, check=False, env=environment
    )


def left_over(mark: str) -> list[str]:
    """Return the command lines of all processes that inherited this mark: a demo leaves none behind."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # It has ended, or is another user's.
            continue
        if f"{MARK}={mark}".encode() in environment:
            found.append(command)
    return found


def check_kept(report: KeepReport | None, told: str) -> None:
    """Check what holds of the program that was kept, whether its node was killed or not."""
    assert report is not None, told
    assert report.kept, told
    moved, past, audited = report.moved, report.replayed, report.audited
    assert (moved.kept, past.kept, audited.kept) == (True, True, True), told
    assert (moved.failed, moved.lost, moved.doubled) == (0, 0, 0), told
    assert 0 < moved.pause_s <= PAUSE_S_MAX, told
    assert moved.source != moved.node == moved.target, told
    assert not {moved.source, moved.target} & set(report.clients), "it is used from other nodes"
    assert past.node != past.owner, told
    assert past.digest == past.owner_digest != "", told
    assert past.events >= moved.acknowledged > 0, told
    assert audited.named == audited.block > 0, told


def test_the_left_over_check_sees_what_a_demo_starts() -> None:
    mark = uuid4().hex
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, env=os.environ | {MARK: mark}):
        assert len(left_over(mark)) == 1
    assert left_over(mark) == []


def test_the_demo_keeps_every_promise_and_its_trace_does_not_depend_on_hashing() -> None:
    mark = uuid4().hex
    done = run("-m", "atoll.cli", "demo", "--json", "--seed", str(SEED), hash_seed="1", mark=mark)
    assert done.stderr == ""
    report = msgspec.json.decode(done.stdout, type=DemoReport)
    told = json.dumps(json.loads(done.stdout), indent=1)
    assert done.returncode == 0, told
    assert (report.kept, report.seed, report.faults) == (True, SEED, True), told
    assert [phase.trouble for phase in report.phases] == [phase.trouble.value for phase in phases(SEED)]
    for phase in report.phases:
        assert phase.kept, told
        assert (phase.requests > 0, phase.failed) == (True, 0), told
        assert phase.silence_s <= phase.promised_s, told
    blackhole = next(phase for phase in report.phases if phase.trouble == "blackhole")
    assert blackhole.control_silence_s > blackhole.silence_s, "the direct way is dead all the while"
    assert "->" in blackhole.route
    cpu, disk = report.slow
    assert (cpu.affliction, disk.affliction) == (Affliction.STOLEN_CPU, Affliction.SLOW_DISK)
    for slow in report.slow:
        assert slow.kept, told
        assert (slow.node != "", slow.found_by not in {"", slow.node}) == (True, True), told
        assert slow.found_s is not None, told
        assert slow.found_s <= slow.found_max_s, told
        assert slow.unheard_s < HEARTBEAT_S, "no heartbeat would have found it"
    assert (cpu.cause, disk.cause) == ("cpu", "disk"), told
    assert cpu.node not in cpu.instead.split("->"), told
    assert cpu.silence_s < cpu.control_silence_s, told
    assert (disk.instead, disk.node != cpu.node) == (disk.target, True), told
    assert disk.answer_s < disk.control_answer_s, told
    check_kept(report.keeping, told)
    assert report.keeping is not None
    moved, killed = report.keeping.moved, report.keeping.killed
    assert killed is not None, told
    assert killed.kept, told
    assert (killed.failed, killed.lost, killed.doubled, killed.rivals) == (0, 0, 0, 0), told
    assert killed.again_s is not None, told
    assert killed.again_s <= AGAIN_S_MAX, told
    assert killed.killed == moved.target != killed.node, told
    assert killed.acknowledged > moved.acknowledged, told
    assert all(len(names) == 1 for names in killed.owners), told
    assert [names[0] for names in killed.owners[:2]] == [moved.source, moved.target], told
    later = {names[0] for names in killed.owners[2:]}  # It goes on to another node if the next one is slow.
    assert {killed.node, report.keeping.replayed.owner} <= later, told
    assert report.alarms == (), told
    assert report.simulated.trace == run("-c", PLAY, str(SEED), hash_seed="2").stdout
    assert left_over(mark) == []


def test_without_faults_nobody_is_called_slow() -> None:
    mark = uuid4().hex
    done = run("-m", "atoll.cli", "demo", "--json", "--no-faults", "--speed", "2", mark=mark)
    report = msgspec.json.decode(done.stdout, type=DemoReport)
    told = json.dumps(json.loads(done.stdout), indent=1)
    assert (done.returncode, report.kept, report.faults) == (0, True, False), told
    assert report.alarms == (), told
    assert [(slow.node, slow.found_s) for slow in report.slow] == [("", None)] * 2, told
    check_kept(report.keeping, told)
    assert report.keeping is not None
    assert report.keeping.killed is None, told
    assert left_over(mark) == []


def test_another_seed_is_another_script() -> None:
    assert phases(SEED) == phases(SEED)
    assert phases(SEED) != phases(SEED + 1)
