# SPDX-License-Identifier: Apache-2.0
"""Which blocks are in the journal, without their content: the part of it by which ownership is decided.

``last`` is the last block that the recorder was asked to write, ``durable`` the last one that it answered for. Both are
about the same journal because the recorder obeys in order: what is cut from the ledger while its write is under way is
marked, and the answer to that write then changes nothing.
"""

from typing import Final

import msgspec

__all__ = ["Configured", "Ledger", "Run", "Write"]

_NOBODY: Final[tuple[bytes, ...]] = ()


class Run(msgspec.Struct, array_like=True):
    """Blocks of one epoch: from ``first`` to the one before the next run."""

    first: int
    epoch: int


class Configured(msgspec.Struct, array_like=True):
    """The holders from a block on."""

    number: int
    holders: tuple[bytes, ...]


class Write(msgspec.Struct, array_like=True):
    """A write that the recorder has not answered; not ``live``: the ledger no longer has what it wrote."""

    number: int
    epoch: int
    live: bool = True


class Ledger(msgspec.Struct):
    """Numbers and epochs of the blocks in the journal, and who the holders are by each.

    Attributes:
        base_number: The journal goes back to the block after this one; before it there is a snapshot.
        base_epoch: Epoch of that block.
        last: Last block, durable or on its way to the disk.
        durable: Last block that is kept, with all before it.
        runs: Blocks after the base by epoch, ascending; as many as there were owners since the snapshot.
        configs: Holders by block, ascending; the first is at or before the base.
        writes: Writes that are not answered, in order.
        floor_epoch: Epoch and number of the last block that this node ever had and no longer has: a vote must not
        floor_number: forget it.
    """

    base_number: int = 0
    base_epoch: int = 0
    last: int = 0
    durable: int = 0
    runs: list[Run] = []
    configs: list[Configured] = []
    writes: list[Write] = []
    floor_epoch: int = 0
    floor_number: int = 0

    @property
    def holders(self) -> tuple[bytes, ...]:
        """Who the holders are: by the newest block that says so, committed or not."""
        return self.configs[-1].holders if self.configs else _NOBODY

    @property
    def changed_number(self) -> int:
        """The block that said so; 0: none."""
        return self.configs[-1].number if self.configs else 0

    @property
    def last_epoch(self) -> int:
        """Epoch of the last block."""
        return self.runs[-1].epoch if self.runs else self.base_epoch

    @property
    def rank(self) -> tuple[int, int]:
        """(epoch, number) of the newest block that this node ever had: an owner must have as much."""
        return max((self.last_epoch, self.last), (self.floor_epoch, self.floor_number))

    def epoch_of(self, number: int) -> int | None:
        """Return the epoch of a block; None: it is before the base or after the last."""
        if number == self.base_number:
            return self.base_epoch
        if not self.base_number < number <= self.last:
            return None
        return next(run.epoch for run in reversed(self.runs) if run.first <= number)

    def hint(self, before_number: int) -> int:
        """Return the last block that may be the same as an owner's, when the one before its blocks is not.

        All blocks of the epoch that differs are skipped at once, so that two journals meet in one step for each epoch.
        """
        if before_number > self.last:
            return self.last
        differing = next((run.first for run in reversed(self.runs) if run.first <= before_number), self.base_number + 1)
        return differing - 1

    def append(self, number: int, epoch: int, holders: tuple[bytes, ...]) -> None:
        """Note a block that the recorder is asked to write."""
        assert number == self.last + 1, f"block {number} after {self.last}"
        assert epoch >= self.last_epoch, f"a block of epoch {epoch} after one of {self.last_epoch}"
        if not self.runs or self.runs[-1].epoch != epoch:
            self.runs.append(Run(number, epoch))
        if holders:
            self.configs.append(Configured(number, holders))
        self.last = number
        self.writes.append(Write(number, epoch))

    def cut(self, number: int) -> None:
        """Forget the blocks from this number on."""
        assert self.base_number < number <= self.last, f"a cut at {number}, of {self.base_number} to {self.last}"
        self.last = number - 1
        self.durable = min(self.durable, self.last)
        while self.runs and self.runs[-1].first >= number:
            self.runs.pop()
        while self.configs and self.configs[-1].number >= number:
            self.configs.pop()
        for write in self.writes:
            write.live = write.live and write.number < number

    def settle(self, number: int, epoch: int, *, kept: bool) -> bool | None:
        """Take the recorder's answer to the oldest write.

        Returns:
            Whether the ledger still has the block; None: nobody asked for this write.
        """
        if not self.writes or (self.writes[0].number, self.writes[0].epoch) != (number, epoch):
            return None
        write = self.writes.pop(0)
        if write.live and kept:
            assert number == self.durable + 1, f"block {number} kept after {self.durable}"
            self.durable = number
        return write.live

    def checkpoint(self, number: int) -> None:
        """Let the journal begin after this block, which is durable."""
        assert self.base_number < number <= self.durable, f"a checkpoint at {number} of {self.durable}"
        epoch = self.epoch_of(number)
        assert epoch is not None
        later = [run for run in self.runs if run.first > number]
        if self.last > number and not (later and later[0].first == number + 1):
            later.insert(0, Run(number + 1, epoch))
        self.runs = later
        self.base_number, self.base_epoch = number, epoch
        while len(self.configs) > 1 and self.configs[1].number <= number:
            self.configs.pop(0)

    def install(self, number: int, epoch: int, holders: tuple[bytes, ...]) -> None:
        """Let a snapshot after this block take the place of the journal."""
        for write in self.writes:
            write.live = False
        self.base_number, self.base_epoch = number, epoch
        self.last = self.durable = number
        self.runs, self.configs = [], [Configured(number, holders)]
