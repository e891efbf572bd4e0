# SPDX-License-Identifier: Apache-2.0
"""How long a client waited: judged from its requests, an unfinished one included."""

from atoll.lab.clients import HttpClient, Request, Visit, Visitor


def client(*requests: tuple[float, float, bool]) -> HttpClient:
    one = HttpClient(0)
    one.requests.extend(Request(*request) for request in requests)
    return one


def steady(from_s: float, until_s: float, *, takes_s: float = 0.1) -> list[tuple[float, float, bool]]:
    count = round((until_s - from_s) / takes_s)
    return [(from_s + number * takes_s, from_s + (number + 1) * takes_s, True) for number in range(count)]


def test_a_healthy_client_waits_its_usual_time() -> None:
    waits = client(*steady(0, 4)).waits(2.0, 3.0)
    assert (waits.failed, waits.late) == (0, 0)
    assert abs(waits.usual_s - 0.1) < 0.001
    assert abs(waits.silence_s - 0.1) < 0.001
    assert waits.requests in {10, 11}


def test_silence_counts_from_the_onset_to_the_end() -> None:
    waits = client(*steady(0, 2)).waits(2.0, 5.0)
    assert waits.silence_s == 3.0
    assert (waits.requests, waits.failed) == (0, 0), "an unfinished request is silence"


def test_late_and_failed_requests_are_told_apart() -> None:
    waits = client(*steady(0, 2), (2.0, 2.5, True), (2.5, 7.5, False), (7.5, 7.6, True)).waits(2.0, 8.0)
    assert (waits.requests, waits.failed, waits.late) == (3, 1, 1)
    assert waits.silence_s == 7.6 - 2.5


def test_what_lies_outside_does_not_count() -> None:
    waits = client(*steady(0, 2), (2.0, 2.1, True), (4.0, 9.0, False)).waits(2.0, 3.0)
    assert (waits.requests, waits.failed) == (1, 0)
    assert abs(waits.silence_s - 0.9) < 0.001


def test_a_client_that_never_asked_has_no_usual_time() -> None:
    waits = client().waits(1.0, 2.0)
    assert (waits.requests, waits.usual_s, waits.silence_s) == (0, 0.0, 1.0)


def visitor(*visits: tuple[float, float, str]) -> Visitor:
    one = Visitor(0)
    one.visits.extend(Visit(*visit) for visit in visits)
    return one


def test_a_visitor_has_moved_when_all_its_newest_visits_were_elsewhere() -> None:
    assert visitor().moved_s("gpu") is None
    assert visitor((1.0, 1.2, "gpu"), (2.0, 2.2, "gpu")).moved_s("gpu") is None
    assert visitor((1.0, 1.2, "gpu"), (2.0, 2.2, "sin"), (3.0, 3.2, "sin")).moved_s("gpu") == 2.0
    assert visitor((2.0, 2.2, "sin"), (3.0, 3.2, "gpu")).moved_s("gpu") is None
    assert visitor((2.0, 2.2, "sin"), (3.0, 3.2, "")).moved_s("gpu") is None, "nobody answered"


def test_a_visitor_tells_who_answered_and_how_soon() -> None:
    one = visitor((1.0, 1.5, "gpu"), (2.0, 2.1, "sin"), (3.0, 8.0, ""), (4.0, 4.2, "sin"), (5.0, 5.4, "ash"))
    assert one.hosts(2.0, 5.0) == ("sin",)
    assert one.hosts(0.0, 9.0) == ("gpu", "sin", "ash")
    assert round(one.answer_s(2.0, 9.0), 3) == 0.2
    assert one.answer_s(6.0, 9.0) == 0.0
    waits = one.waits(1.8, 6.0)
    assert (waits.requests, waits.failed, round(waits.usual_s, 3)) == (4, 1, 0.5)
