# SPDX-License-Identifier: Apache-2.0
"""Views as text, word for word."""

import msgspec
import pytest

from atoll.base.errors import UserError
from atoll.cli import render
from atoll.node.views import (
    CandidateView,
    ComponentView,
    DiagnosisView,
    FindingView,
    ForwardView,
    InviteView,
    PeerView,
    PingView,
    Ready,
    RelayView,
    StatusView,
    SwitchView,
    WhyView,
)

RELAYING = RelayView(will="yes", bytes_s=150_000, budget_bytes_s=2_500_000, pairs=1, forwarded_bytes=10**6)


def peer(name: str, **changes: object) -> PeerView:
    usual = PeerView(
        name=name,
        node="00" * 10,
        address="fd00::1",
        state="ok",
        via=None,
        rtt_ms=88.4,
        deviation_ms=1.2,
        loss=0.0,
        why="",
        last_heard_s=0.2,
        session=True,
        relay="yes",
        endpoint="192.0.2.1:41641",
    )
    return msgspec.structs.replace(usual, **changes)


def status(*peers: PeerView, **changes: object) -> StatusView:
    usual = StatusView(
        version="0.1.0",
        name="fra-1",
        node="11" * 10,
        address="fd00::2",
        group="blue-heron",
        roster_version="3",
        uptime_s=10.0,
        listen="0.0.0.0:41641",
        peers=peers,
        relaying=RELAYING,
        degraded=False,
    )
    return msgspec.structs.replace(usual, **changes)


AWAY = {
    "state": "away",
    "session": False,
    "rtt_ms": None,
    "deviation_ms": None,
    "loss": None,
    "last_heard_s": 370.0,
}
DETOUR = {
    "state": "ok",
    "via": "ash-1",
    "rtt_ms": 171.0,
    "deviation_ms": 2.0,
    "loss": 0.001,
    "why": "direct had 31.0% loss since 14:02:11 (switched in 0.43 s)",
}


def test_status_is_a_table_that_a_person_reads_at_a_glance() -> None:
    view = status(peer("ash-1"), peer("sin-1", **DETOUR), peer("gpu-2", **AWAY))
    assert render.status(view) == (
        "PEER   STATE  PATH             RTT  LOSS  WHY\n"
        "ash-1  ok     direct      88 ±1 ms  0.0%\n"
        "sin-1  ok     via ash-1  171 ±2 ms  0.1%  direct had 31.0% loss since 14:02:11 (switched in 0.43 s)\n"
        "gpu-2  away   -                  -     -  last heard 6 min ago\n"
        "3 peers: 2 ok, 1 away      relaying for others: 1.2 Mbit/s of 20 allowed\n"
    )


def test_status_of_a_lonely_node_says_what_to_do() -> None:
    view = status(relaying=msgspec.structs.replace(RELAYING, will="never"))
    assert render.status(view) == ("no peers: add a machine with `atoll invite`      relaying for others: never\n")


def test_a_peer_that_was_never_heard_has_no_age_and_one_peer_is_singular() -> None:
    text = render.status(status(peer("new", **{**AWAY, "last_heard_s": None}), degraded=True))
    assert "never heard" in text
    assert "1 peer: 1 away" in text


def test_plain_columns_are_tabs_and_unknown_is_a_hyphen() -> None:
    view = status(peer("ash-1"), peer("sin-1", **DETOUR), peer("gpu-2", **AWAY))
    rows = [line.split("\t") for line in render.status_plain(view).splitlines()]
    assert rows == [
        ["ash-1", "ok", "direct", "88.4", "1.2", "0.0000", "0.2", "fd00::1", "-"],
        ["sin-1", "ok", "ash-1", "171.0", "2.0", "0.0010", "0.2", "fd00::1", DETOUR["why"]],
        ["gpu-2", "away", "-", "-", "-", "-", "370.0", "fd00::1", "-"],
    ]


def test_why_gives_the_choice_its_rivals_and_the_history() -> None:
    direct = CandidateView(
        via=None,
        chosen=False,
        state="suspect",
        rtt_ms=168.0,
        loss_out=0.31,
        loss_in=None,
        score_ms=478.0,
        tcp_mbit_s=0.6,
        verdict="lossy",
    )
    relay = CandidateView(
        via="ash-1",
        chosen=True,
        state="ok",
        rtt_ms=171.0,
        loss_out=0.001,
        loss_in=0.0,
        score_ms=172.0,
        tcp_mbit_s=240.0,
        verdict="",
    )
    view = WhyView(
        source="fra-1",
        target="sin-1",
        tag="latency",
        path=("fra-1", "ash-1", "sin-1"),
        since_s=190.0,
        because="direct fra-1 -> sin-1 lost 31% of 412 probes",
        candidates=(direct, relay),
        history=(
            SwitchView(ago_s=4000.0, before="ash-1", after=None, cause="recovered", evidence="", took_s=0.0),
            SwitchView(
                ago_s=190.0, before=None, after="ash-1", cause="lossy", evidence="31% of the last 32", took_s=0.43
            ),
        ),
        next="nothing needed; returns to direct after 60 s below 1% loss",
    )
    assert render.why(view) == (
        "Path      fra-1 -> ash-1 -> sin-1   (chosen 3 min ago)\n"
        "Because   direct fra-1 -> sin-1 lost 31% of 412 probes\n"
        "Would be  via ash-1: 171 ms + 0.1% loss -> TCP about 240.0 Mbit/s\n"
        "          direct: 168 ms + 31.0% loss -> TCP about 0.6 Mbit/s   (lossy)\n"
        "Changes   3 min ago  direct -> via ash-1 in 0.43 s  lossy: 31% of the last 32\n"
        "          1 h ago  via ash-1 -> direct  recovered\n"
        "Next      nothing needed; returns to direct after 60 s below 1% loss\n"
    )


def found(cause: str, because: str, then: str, confidence: int = 90) -> FindingView:
    return FindingView(cause=cause, where="sin-1", because=because, confidence=confidence, costs_ms=80.0, next=then)


def test_why_names_what_is_slow_what_is_not_and_what_is_not_known() -> None:
    view = WhyView(
        source="fra-1",
        target="sin-1",
        tag="latency",
        path=("fra-1", "sin-1"),
        since_s=190.0,
        because="start; direct ok, 250.0 ms",
        candidates=(),
        history=(),
        next="A path that is clearly better is taken.",
        hearsay=("ash-1 says: round trip 300 ms, usually 90 ms",),
        diagnosis=DiagnosisView(
            symptom="round trip 250 ms, usually 168 ms",
            findings=(
                found("cpu", "sin-1 runs 80 ms late.", "on sin-1 run: top"),
                found("disk", "A durable write on sin-1 takes 1.9 s.", "on sin-1 run: top", 85),
                found("unknown", "The round trip is longer than that explains.", ""),
            ),
            not_it=(
                "MTU: packets of 1408 bytes pass",
                "clock of sin-1: 3 ms from this one",
                "loss: 0 % of the packets",
            ),
            unknown=("memory of sin-1: it did not say",),
        ),
    )
    assert render.why(view) == (
        "Path      fra-1 -> sin-1   (chosen 3 min ago)\n"
        "Symptom   round trip 250 ms, usually 168 ms\n"
        "Because   sin-1 runs 80 ms late.  (cpu, 90 % sure)\n"
        "          A durable write on sin-1 takes 1.9 s.  (disk, 85 % sure)\n"
        "          The round trip is longer than that explains.\n"
        "Taken     start; direct ok, 250.0 ms\n"
        "Not it    MTU: packets of 1408 bytes pass; clock of sin-1: 3 ms from this one; loss: 0 % of the packets\n"
        "Unknown   memory of sin-1: it did not say\n"
        "Others    ash-1 says: round trip 300 ms, usually 90 ms\n"
        "Next      on sin-1 run: top\n"
        "          A path that is clearly better is taken.\n"
    )


def test_why_in_the_word_of_another_says_so_first() -> None:
    view = WhyView(
        source="a",
        target="b",
        tag="latency",
        path=("a", "b"),
        since_s=3.0,
        because="direct ok",
        candidates=(),
        history=(),
        next="-",
        told_by="a",
    )
    assert render.why(view) == (
        "Told by   a: its own word, which nobody here can check\n"
        "Path      a -> b   (chosen 3 s ago)\nBecause   direct ok\nNext      -\n"
    )


def test_why_without_a_path_or_numbers_prints_hyphens() -> None:
    unknown = CandidateView(
        via=None,
        chosen=False,
        state="unknown",
        rtt_ms=None,
        loss_out=None,
        loss_in=None,
        score_ms=None,
        tcp_mbit_s=None,
        verdict="never measured",
    )
    view = WhyView(
        source="a",
        target="b",
        tag="latency",
        path=(),
        since_s=None,
        because="b was never heard",
        candidates=(unknown,),
        history=(),
        next="waiting",
    )
    assert render.why(view) == (
        "Path      -\nBecause   b was never heard\nWould be  direct: -   (never measured)\nNext      waiting\n"
    )


def test_ready_ends_with_the_line_for_the_next_machine() -> None:
    view = Ready(
        version="0.1.0",
        name="fra-1",
        group="blue-heron",
        mode="rootless",
        address="fd00::2",
        listen="udp/0.0.0.0:41641",
        invite="atoll1-7K4Q",
        invite_valid_s=600,
        ready_s=0.91,
        joined=False,
    )
    assert render.ready(view) == (
        "atoll 0.1.0  node  fra-1   group  blue-heron   mode  rootless\n"
        "  listening   udp/0.0.0.0:41641\n"
        "  address     fd00::2\n"
        "  add another machine (valid 10 min, 1 use):\n"
        "      atoll up atoll1-7K4Q\n"
        "Ready in 0.9 s.\n"
    )
    joined = msgspec.structs.replace(view, joined=True, invite=None, invite_valid_s=None)
    assert "  joined      blue-heron\nReady" in render.ready(joined)
    assert render.invite(InviteView(invite="atoll1-7K4Q", valid_s=600)) == "atoll up atoll1-7K4Q\n"


def test_an_error_has_code_sentence_evidence_remedy_and_more() -> None:
    problem = UserError(
        "A203",
        "this invitation expired 4 minutes ago",
        where="invitation from fra-1, issued 14:00, valid 10 min",
        fix="on fra-1 run:  atoll invite        then paste the new line here",
    )
    assert render.error(problem) == (
        "error A203: this invitation expired 4 minutes ago\n"
        "  where   invitation from fra-1, issued 14:00, valid 10 min\n"
        "  fix     on fra-1 run:  atoll invite        then paste the new line here\n"
        "  more    atoll help A203\n"
    )
    assert render.error(UserError("A499", "x", where="a\nb")) == (
        "error A499: x\n  where   a\n          b\n  more    atoll help A499\n"
    )


def test_pings_say_path_and_time_or_that_there_was_no_answer() -> None:
    views = [
        PingView(name="sin-1", sequence=1, via="ash-1", rtt_ms=171.25),
        PingView(name="sin-1", sequence=2, via=None, rtt_ms=None),
        PingView(name="sin-1", sequence=3, via=None, rtt_ms=88.0),
    ]
    assert [render.ping(view) for view in views] == [
        "sin-1  via ash-1  seq 1  171.2 ms\n",
        "sin-1  direct  seq 2  no answer\n",
        "sin-1  direct  seq 3  88.0 ms\n",
    ]
    assert render.ping_summary(views) == "3 sent, 2 answered, 33.3% lost; min/median/max 88.0/129.6/171.2 ms\n"
    assert render.ping_summary([]) == "0 sent, 0 answered, 0.0% lost\n"


def test_forwards_as_table_and_as_columns() -> None:
    view = ForwardView(
        id=2,
        protocol="tcp",
        local="127.0.0.1:8080",
        node="sin-1",
        port=80,
        tag="latency",
        connections=3,
        carrier="quic",
    )
    assert render.forwards([view]) == (
        "ID  PROTOCOL  LOCAL           TO        TAG      OPEN  BY\n"
        " 2  tcp       127.0.0.1:8080  sin-1:80  latency     3  quic\n"
    )
    assert render.forwards_plain([view]) == "2\ttcp\t127.0.0.1:8080\tsin-1\t80\tlatency\t3\tquic\n"
    assert render.forwards([]) == "no forwards\n"


def test_a_proxy_among_the_forwards_leads_to_all_members() -> None:
    view = ForwardView(id=3, protocol="socks", local="[::1]:1080", node="", port=0, tag="loss", connections=1)
    assert render.forwards([view]) == (
        "ID  PROTOCOL  LOCAL       TO           TAG   OPEN  BY\n 3  socks     [::1]:1080  all members  loss     1  -\n"
    )
    assert render.forwards_plain([view]) == "3\tsocks\t[::1]:1080\t-\t-\tloss\t1\t-\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (3600, "1 h"), (200_000, "2 d")],
)
def test_an_age_is_given_in_its_largest_unit(seconds: float | None, text: str) -> None:
    assert render.ago(seconds) == text


def test_an_explanation_ends_with_the_exit_status() -> None:
    text = render.explanation("A203")
    assert text.startswith("A203: this invitation has expired\n")
    assert text.endswith("Exit status 6.\n")
    with pytest.raises(KeyError):
        render.explanation("A999")


def test_status_says_what_is_slow_of_this_machine_itself() -> None:
    disk = ComponentView(
        name="disk",
        state="slow",
        since_s=200.0,
        usual_ms=5.0,
        newest_ms=1912.0,
        samples=90,
        text="disk write 1912 ms, usually 1.2 ms",
    )
    well = ComponentView(name="loop", state="ok", since_s=1.0, usual_ms=10.0, newest_ms=10.0, samples=90, text="-")
    text = render.status(status(components=(disk, well)))
    assert text.splitlines()[-1] == "fra-1 itself is slow: disk write 1912 ms, usually 1.2 ms, for 3 min"
