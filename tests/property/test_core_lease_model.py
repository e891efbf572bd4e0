# SPDX-License-Identifier: Apache-2.0
"""The lease table against a model that keeps everything in one plain list."""

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atoll.base.errors import LimitError
from atoll.core.lease import Lease, LeaseTable

LEASES_MAX = 4
DURATIONS = st.integers(1, 20)


class LeaseModel(RuleBasedStateMachine):
    """Grants, renewals, releases and time in any order; every handle ever given is kept and tried again."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable(LEASES_MAX)
        self.now_ns = 0
        self.handles: list[Lease] = []
        self.expiry_by_generation: dict[int, int] = {}

    @rule(duration_ns=DURATIONS)
    def grant(self, duration_ns: int) -> None:
        if len(self.expiry_by_generation) == LEASES_MAX:
            with pytest.raises(LimitError, match="leases_max is 4"):
                self.table.grant(self.now_ns, duration_ns)
            return
        lease = self.table.grant(self.now_ns, duration_ns)
        assert 0 <= lease.id < LEASES_MAX
        assert lease.generation not in {handle.generation for handle in self.handles}
        self.handles.append(lease)
        self.expiry_by_generation[lease.generation] = self.now_ns + duration_ns

    @precondition(lambda self: self.handles)
    @rule(pick=st.integers(0, 1 << 16), duration_ns=DURATIONS)
    def renew(self, pick: int, duration_ns: int) -> None:
        handle = self.handles[pick % len(self.handles)]
        renewed = self.table.renew(handle, self.now_ns, duration_ns)
        if handle.generation in self.expiry_by_generation:
            self.expiry_by_generation[handle.generation] = self.now_ns + duration_ns
            assert renewed == Lease(handle.id, handle.generation, self.now_ns + duration_ns)
        else:
            assert renewed is None

    @precondition(lambda self: self.handles)
    @rule(pick=st.integers(0, 1 << 16))
    def release(self, pick: int) -> None:
        handle = self.handles[pick % len(self.handles)]
        assert self.table.release(handle) == (self.expiry_by_generation.pop(handle.generation, None) is not None)

    @rule(passed_ns=st.integers(0, 15))
    def expire(self, passed_ns: int) -> None:
        self.now_ns += passed_ns
        due = sorted((at, generation) for generation, at in self.expiry_by_generation.items() if at <= self.now_ns)
        ended = self.table.expire(self.now_ns)
        assert [(lease.expires_ns, lease.generation) for lease in ended] == due
        for _, generation in due:
            del self.expiry_by_generation[generation]

    @rule()
    def restart(self) -> None:
        self.table = msgspec.msgpack.decode(msgspec.msgpack.encode(self.table), type=LeaseTable)

    @invariant()
    def agrees(self) -> None:
        assert self.table.deadline_ns == min(self.expiry_by_generation.values(), default=None)
        held = {handle.generation for handle in self.handles if self.table.holds(handle)}
        assert held == set(self.expiry_by_generation)
        assert len({lease.id for lease in self.table.held.values()}) == len(held)


TestLeaseModel = LeaseModel.TestCase
