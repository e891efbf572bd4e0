# SPDX-License-Identifier: Apache-2.0
"""Leases: bounded, refused after their end, expired in order."""

import msgspec
import pytest

from atoll.base.errors import LimitError, UsageError
from atoll.core.lease import Lease, LeaseTable


def test_a_lease_holds_until_its_time() -> None:
    table = LeaseTable(2)
    lease = table.grant(100, 50)
    assert lease == Lease(id=0, generation=1, expires_ns=150)
    assert table.deadline_ns == 150
    assert table.expire(149) == ()
    assert table.holds(lease)
    assert table.expire(150) == (lease,)
    assert not table.holds(lease)
    assert table.deadline_ns is None


def test_the_bound_refuses_one_grant_and_nothing_else() -> None:
    table = LeaseTable(2)
    first, second = table.grant(0, 10), table.grant(0, 10)
    with pytest.raises(LimitError, match="leases_max is 2"):
        table.grant(0, 10)
    assert table.holds(first)
    assert table.holds(second)
    assert table.release(first)
    assert table.grant(1, 10).id == first.id


def test_a_handle_of_the_slots_former_holder_is_refused() -> None:
    table = LeaseTable(1)
    old = table.grant(0, 10)
    table.release(old)
    new = table.grant(0, 10)
    assert old.id == new.id
    assert not table.holds(old)
    assert table.renew(old, 0, 10) is None
    assert not table.release(old)
    assert table.holds(new)


def test_a_renewed_lease_keeps_its_slot_and_changes_its_time() -> None:
    table = LeaseTable(4)
    first, other = table.grant(0, 10), table.grant(0, 20)
    renewed = table.renew(first, 5, 30)
    assert renewed == Lease(first.id, first.generation, 35)
    assert table.deadline_ns == 20
    assert table.expire(34) == (other,)
    assert table.holds(first)
    assert table.expire(35) == (renewed,)


def test_a_lease_can_be_renewed_to_a_sooner_time() -> None:
    table = LeaseTable(1)
    lease = table.grant(0, 100)
    table.renew(lease, 0, 10)
    assert table.deadline_ns == 10
    assert [ended.expires_ns for ended in table.expire(10)] == [10]
    assert table.expire(100) == ()


def test_leases_expire_by_time_and_then_by_age() -> None:
    table = LeaseTable(4)
    late, twin, first, second = table.grant(0, 30), table.grant(0, 20), table.grant(0, 10), table.grant(5, 5)
    assert table.expire(30) == (first, second, twin, late)


def test_the_order_is_not_that_of_a_slots_former_holder() -> None:
    table = LeaseTable(3)
    soon, former, second = table.grant(0, 5), table.grant(0, 10), table.grant(0, 10)
    table.release(former)
    third = table.grant(0, 10)
    assert third.id == former.id
    assert table.expire(10) == (soon, second, third)


def test_reading_the_deadline_changes_nothing() -> None:
    table = LeaseTable(4)
    leases = [table.grant(0, 10 + index) for index in range(4)]
    table.renew(leases[0], 0, 99)
    table.release(leases[1])
    before = msgspec.msgpack.encode(table)
    assert table.deadline_ns == 12
    assert msgspec.msgpack.encode(table) == before


def test_renewing_for_ever_does_not_grow_the_queue() -> None:
    table = LeaseTable(3)
    keeper, lease = table.grant(0, 1), table.grant(0, 10)
    for now_ns in range(1000):
        table.renew(lease, now_ns, 10)
        assert len(table.queue) <= 2 * 3 + 17
    assert table.expire(0) == ()
    assert table.expire(1) == (keeper,)


def test_a_table_goes_on_from_its_encoding() -> None:
    table = LeaseTable(3)
    table.release(table.grant(0, 5))
    table.grant(0, 7)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(table), type=LeaseTable)
    assert again == table
    assert [again.grant(1, 9), again.expire(8)] == [table.grant(1, 9), table.expire(8)]


@pytest.mark.parametrize("duration_ns", [0, -1])
def test_a_lease_without_duration_is_refused(duration_ns: int) -> None:
    table = LeaseTable(2)
    lease = table.grant(0, 1)
    with pytest.raises(UsageError):
        table.grant(0, duration_ns)
    with pytest.raises(UsageError):
        table.renew(lease, 0, duration_ns)
