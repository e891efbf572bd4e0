# SPDX-License-Identifier: Apache-2.0
"""What a packet device is told at each start, what is said of it, and when it is given up."""

from collections.abc import Coroutine
from typing import TypeVar

import pytest

from atoll.base.errors import UserError
from atoll.base.ids import Endpoint, GroupId
from atoll.base.units import SECOND_NS
from atoll.device.nic.messages import Configure, Listening
from atoll.node.device import RESTARTS_MAX, RESTARTS_NS, Device, started
from tests.unit.group_world import identity

OWN = identity(0)
HERE: Endpoint = ("192.0.2.1", 7747)
TCP: Endpoint = ("tcp/192.0.2.1", 7747)

Result = TypeVar("Result")


def run(work: Coroutine[None, None, Result]) -> Result:
    """Run what waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        work.send(None)
    result: Result = ended.value.value
    return result


class Process:
    """A packet device's process that says what it was given to say."""

    def __init__(self, told: Listening) -> None:
        self.told, self.orders = told, list[Configure]()

    async def start(self, configure: Configure) -> Listening:
        self.orders.append(configure)
        return self.told


def device(told: Listening) -> tuple[Device, Process]:
    process = Process(told)
    return Device(process, GroupId(bytes(32)), OWN, relay_bytes_s=7, stamp_ns=5), process


def test_it_is_told_who_we_are_and_at_each_start_the_newest_timestamp() -> None:
    one, process = device(Listening((HERE,)))
    assert run(one.start((HERE, TCP))) == (HERE,)
    assert one.reserved(90) == 90
    assert one.reserved(80) == 90, "it never goes back"
    run(one.start((HERE,)))
    first, second = process.orders
    assert (first.group, first.private_key, first.relay_bytes_s) == (bytes(32), OWN.exchange_secret, 7)
    assert (first.listen, second.listen) == ((HERE, TCP), (HERE,))
    assert (first.wall_floor_ns, second.wall_floor_ns) == (5, 90)
    assert first.run_as_uid, "never root"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("EADDRINUSE", "the port is in use: udp/192.0.2.1:7747"),
        ("EADDRNOTAVAIL", "cannot listen on udp/192.0.2.1:7747"),
    ],
)
def test_an_address_that_cannot_be_had_is_told(error: str, sentence: str) -> None:
    configure = Configure(bytes(32), bytes(32), (HERE, TCP))
    with pytest.raises(UserError) as refused:
        started(Process(Listening((), error)), configure).send(None)
    assert (refused.value.code, refused.value.sentence, refused.value.where) == ("A105", sentence, error)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (Listening(()), "offloads, one datagram at a time, ChaCha20-Poly1305, not compiled"),
        (Listening((), bursts=True, aes=True, compiled=True), "offloads, bursts, AES-256-GCM, bursts compiled"),
        (
            Listening((), compiled=True, translated=True),
            "offloads, one datagram at a time, ChaCha20-Poly1305, compiled",
        ),
    ],
)
def test_what_it_can_is_told_to_people(told: Listening, text: str) -> None:
    one, _ = device(told)
    run(one.start((HERE,)))
    assert one.text("offloads") == text
    assert one.warnings() == ()


def test_a_tcp_port_that_could_not_be_had_is_a_warning() -> None:
    one, _ = device(Listening((HERE,), missing=(TCP,)))
    run(one.start((HERE, TCP)))
    (warning,) = one.warnings()
    assert warning.startswith("tcp/192.0.2.1:7747 cannot be had")


def test_one_that_keeps_ending_is_given_up() -> None:
    one, _ = device(Listening(()))
    assert [one.ended(number * SECOND_NS) for number in range(RESTARTS_MAX + 1)] == [True] * RESTARTS_MAX + [False]
    assert one.ended(RESTARTS_NS + SECOND_NS), "two of these are forgotten"
