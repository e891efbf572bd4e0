# SPDX-License-Identifier: Apache-2.0
"""The fake disk against a model of its contract: any operations, crashes at any place."""

from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atoll.base.errors import StorageError
from atoll.sim.disk import PowerCut, SimDisk

NAMES = st.sampled_from(["a", "b", "c"])
CONTENT = st.binary(max_size=12)


class DiskModel(RuleBasedStateMachine):
    """What must be read now, and of each file what is durable and which whole or torn states a crash may leave."""

    def __init__(self) -> None:
        super().__init__()
        self.luck = Random(0)
        self.disk = SimDisk(self.luck)
        self.now: dict[str, bytes] = {}
        self.synced: dict[str, bytes] = {}  # Files untouched since their last sync.
        self.floor: dict[str, bytes] = {}  # Prefix that any crash keeps: synced, and only appended to since.

    @rule(name=NAMES, content=CONTENT)
    def write(self, name: str, content: bytes) -> None:
        self.disk.write(name, content)
        self.now[name] = content
        self.synced.pop(name, None)
        self.floor.pop(name, None)

    @rule(name=NAMES, content=CONTENT)
    def append(self, name: str, content: bytes) -> None:
        self.disk.append(name, content)
        self.now[name] = self.now.get(name, b"") + content
        self.synced.pop(name, None)

    @rule(name=NAMES)
    def sync(self, name: str) -> None:
        if name in self.now:
            self.disk.sync(name)
            self.synced[name] = self.floor[name] = self.now[name]
        else:
            self.refuses(lambda: self.disk.sync(name))

    @rule(old=NAMES, new=NAMES)
    def rename(self, old: str, new: str) -> None:
        if old not in self.now:
            self.refuses(lambda: self.disk.rename(old, new))
            return
        self.disk.rename(old, new)
        for state in (self.now, self.synced, self.floor):
            content = state.pop(old, None)
            state.pop(new, None)
            if content is not None:
                state[new] = content

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        if name not in self.now:
            self.refuses(lambda: self.disk.remove(name))
            return
        self.disk.remove(name)
        for state in (self.now, self.synced, self.floor):
            state.pop(name, None)

    @rule(seed=st.integers(0, 1 << 32))
    def crash(self, seed: int) -> None:
        self.luck.seed(seed)
        self.disk.crash()
        names = self.disk.names()
        for name, content in self.synced.items():
            assert self.disk.read(name) == content
        for name, content in self.floor.items():
            assert self.disk.read(name).startswith(content)
        assert set(names) <= set(self.now)
        self.now = {name: self.disk.read(name) for name in names}
        self.synced, self.floor = dict(self.now), dict(self.now)  # What a crash left, the next one leaves.

    @rule(name=NAMES, content=CONTENT, operations=st.integers(1, 3), seed=st.integers(0, 1 << 32))
    def replace_with_the_power_going(self, name: str, content: bytes, operations: int, seed: int) -> None:
        """The recipe of the port: write another, sync, rename. Whenever the power goes: the old content or the new."""
        if name not in self.synced:
            return
        self.luck.seed(seed)
        self.disk.cut_power_after(operations)
        try:
            self.disk.write("new", content)
            self.disk.sync("new")
            self.disk.rename("new", name)
            raise AssertionError("the power did not go")
        except PowerCut:
            self.crash_after_replacing(name, content)

    def crash_after_replacing(self, name: str, content: bytes) -> None:
        before = self.synced.pop(name)
        self.floor.pop(name)
        self.now["new"] = content
        self.crash(0)
        assert self.now[name] in {before, content}
        if "new" in self.now:
            self.disk.remove("new")
            for state in (self.now, self.synced, self.floor):
                state.pop("new")

    @invariant()
    def reads_see_every_write(self) -> None:
        assert self.disk.names() == tuple(sorted(self.now))
        assert {name: self.disk.read(name) for name in self.now} == self.now
        assert self.disk.used_bytes() == sum(map(len, self.now.values()))

    @staticmethod
    def refuses(call: object) -> None:
        assert callable(call)
        try:
            call()
        except StorageError:
            return
        raise AssertionError("a file that is not there")


TestDisk = DiskModel.TestCase
