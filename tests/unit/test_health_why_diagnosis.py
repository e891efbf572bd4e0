# SPDX-License-Identifier: Apache-2.0
"""What is named as the cause, case by case: each kind, two at once, what is not known, and decoys."""

from typing import Any, Final

import pytest
from msgspec.structs import replace

from atoll.core.codec import Codec
from atoll.health.why.diagnosis import (
    TEXT_CHARS_MAX,
    Cause,
    Diagnosis,
    Facts,
    Fault,
    HostFacts,
    PathFacts,
    ServiceFacts,
    diagnose,
)
from atoll.health.why.wording import per_cent, span, took

HERE: Final = HostFacts(
    "fra-1",
    busy_share=3400,
    stolen_share=0,
    own_share=300,
    waiting_share=50,
    memory_share=0,
    io_share=0,
    late_us=1_000,
    late_usual_us=900,
    work_us=1_000,
    work_usual_us=990,
    disk_us=1_200,
    disk_usual_us=1_100,
    clock_stepped_s=0,
)
THERE: Final = replace(HERE, name="sin-1", clock_ahead_ms=20)
RELAY: Final = replace(THERE, name="ash-1")
PATH: Final = PathFacts(
    "ok",
    direct_state="ok",
    direct_rtt_us=171_000,
    direct_loss_out=0,
    direct_loss_in=0,
    rtt_us=171_000,
    usual_rtt_us=168_000,
    deviation_us=900,
    loss_out=10,
    loss_in=0,
    floor_us=166_000,
    since_s=7_200,
    mtu=1408,
    large_lost=False,
    others=5,
    far_others=5,
)
WEB: Final = ServiceFacts(443, "tcp", True, "allow * -> *:443", "atoll.toml:2", True, 300, 42_000, 40_000)
WELL: Final = Facts(HERE, THERE, "sin-1", path=PATH)

WAY: Final = "path fra-1 -> sin-1"
RELAYED: Final = "path fra-1 -> ash-1 -> sin-1"
Named = list[tuple[Cause, str]]
UNEXPLAINED: Final[Named] = [(Cause.UNKNOWN, WAY)]
NONE: Final[Named] = [(Cause.NOTHING, WAY)]


def case(**changes: Any) -> Facts:
    """Return the facts of a healthy pair, but for some. ``p_`` changes the path, ``h_`` here, ``t_`` there."""
    facts = WELL
    for name, value in changes.items():
        match name[:2], name[2:]:
            case "p_", field:
                facts = replace(facts, path=replace(facts.path, **{field: value}))
            case "h_", field:
                facts = replace(facts, here=replace(facts.here, **{field: value}))
            case "t_", field:
                assert facts.there is not None
                facts = replace(facts, there=replace(facts.there, **{field: value}))
            case "s_", field:
                facts = replace(facts, service=replace(facts.service or WEB, **{field: value}))
            case _:
                facts = replace(facts, **{name: value})
    return facts


def relayed(rtt_us: int, relay: HostFacts | None = RELAY, **changes: Any) -> Facts:
    """Return the facts of a pair that goes through ash-1, because direct lost a third three minutes ago."""
    lossy = {
        "p_relay": True,
        "p_rtt_us": rtt_us,
        "p_direct_state": "suspect",
        "p_direct_reason": "lossy-out",
        "p_direct_rtt_us": 168_000,
        "p_direct_loss_out": 3_100,
        "p_since_s": 180,
        "p_cause": "lossy",
    }
    return case(relay=relay, relay_name="ash-1", **{**lossy, **changes})


def sick(component: str, percent: int = 250, state: str = "slow") -> tuple[Fault, ...]:
    return (Fault(component, state, 240, percent),)


SLOW: Final[dict[str, Any]] = {"p_rtt_us": 400_000}
LATE: Final[dict[str, Any]] = {"t_late_us": 180_000}

TABLE: Final[dict[str, tuple[Facts, Named]]] = {
    # Nothing.
    "all is well": (WELL, NONE),
    "nothing is known": (Facts(), [(Cause.UNKNOWN, "path this machine -> the other machine")]),
    "well, but the far end said nothing": (case(there=None), NONE),
    # The network.
    "a slow hop": (case(**SLOW), [(Cause.HOP, WAY)]),
    "a slow hop, and stronger jitter": (case(**SLOW, p_deviation_us=90_000), [(Cause.HOP, WAY)]),
    "a hop slowed a little": (case(p_rtt_us=215_000), [(Cause.HOP, WAY)]),
    "everybody is slow from here": (case(**SLOW, p_slow_others=4), [(Cause.HOP, "the network of fra-1")]),
    "everybody is slow from there": (case(**SLOW, p_far_slow_others=3), [(Cause.HOP, "the network of sin-1")]),
    "everybody is slow from there, by a machine that is silent here": (
        case(**SLOW, p_far_slow_others=3, h_late_us=None, h_busy_share=None),
        [(Cause.HOP, "the network of sin-1")],
    ),
    "both ends see everybody slow": (case(**SLOW, p_slow_others=4, p_far_slow_others=4), [(Cause.HOP, WAY)]),
    "one other link is slow as well": (case(**SLOW, p_slow_others=1, p_others=1), [(Cause.HOP, WAY)]),
    "the direct way is slow, and the relay too": (
        relayed(260_000, p_direct_state="ok", p_direct_rtt_us=400_000),
        [(Cause.HOP, WAY)],
    ),
    "the first leg of the relayed way": (
        relayed(400_000, p_usual_rtt_us=260_000, h_ailments=sick("link:ash-1")),
        [(Cause.HOP, "path fra-1 -> ash-1"), (Cause.DETOUR, RELAYED)],
    ),
    "the second leg of the relayed way": (
        relayed(450_000, replace(RELAY, ailments=sick("link:sin-1")), p_usual_rtt_us=260_000),
        [(Cause.HOP, "path ash-1 -> sin-1"), (Cause.DETOUR, RELAYED)],
    ),
    "the relayed way, nobody knows which leg": (
        relayed(450_000, p_usual_rtt_us=260_000),
        [(Cause.HOP, RELAYED), (Cause.DETOUR, RELAYED)],
    ),
    "the watch of the link knows what is usual": (
        case(p_rtt_us=400_000, p_usual_rtt_us=None, h_ailments=sick("link:sin-1")),
        [(Cause.HOP, WAY)],
    ),
    # Loss.
    "a third is lost": (case(p_state="degraded", p_loss_out=3_100), [(Cause.LOSS, WAY)]),
    "lost on the way back": (case(p_loss_in=400), [(Cause.LOSS, "path sin-1 -> fra-1")]),
    "barely lossy": (case(p_loss_out=120), [(Cause.LOSS, WAY)]),
    "loss on all links of here": (case(p_loss_out=900, p_slow_others=5), [(Cause.LOSS, "the network of fra-1")]),
    "loss at a bad network card": (
        case(p_loss_out=900, t_ailments=sick("net", 900)),
        [(Cause.LOSS, "the network card of sin-1")],
    ),
    "loss on all ways, of which the detour follows": (
        relayed(360_000, p_loss_out=300, p_direct_rtt_us=217_000, p_direct_state="ok", p_direct_loss_out=500),
        [(Cause.LOSS, "path fra-1 -> ash-1 -> sin-1"), (Cause.DETOUR, "path fra-1 -> ash-1 -> sin-1")],
    ),
    "a bad network card that loses nothing here": (case(t_ailments=sick("net", 900)), [(Cause.NOTHING, WAY)]),
    "loss on the relayed way": (relayed(171_000, p_loss_in=2_000), [(Cause.LOSS, "path sin-1 -> ash-1 -> fra-1")]),
    # Relays and carriers.
    "a detour": (relayed(260_000), [(Cause.DETOUR, RELAYED)]),
    "a detour, direct is silent": (
        relayed(260_000, p_direct_state="failed", p_direct_reason="silent"),
        [(Cause.DETOUR, RELAYED)],
    ),
    "a detour that has become usual": (relayed(260_000, p_usual_rtt_us=259_000), [(Cause.DETOUR, RELAYED)]),
    "a detour though direct is well again": (
        relayed(260_000, p_direct_state="ok", p_direct_reason="", p_direct_loss_out=0),
        [(Cause.DETOUR, RELAYED)],
    ),
    "a detour, and nobody knows why": (
        relayed(260_000, None, p_direct_state="", p_since_s=None, p_cause="", p_direct_loss_out=None),
        [(Cause.DETOUR, RELAYED)],
    ),
    "no direct way ever": (
        relayed(171_000, p_direct_rtt_us=None, p_floor_us=None, p_direct_state="failed"),
        [(Cause.NAT, WAY)],
    ),
    "no direct way ever, and it was not given up": (
        relayed(171_000, p_direct_rtt_us=None, p_floor_us=None, p_direct_state="unknown"),
        [(Cause.NAT, WAY)],
    ),
    "TCP carries it, and it strays": (
        case(p_rtt_us=260_000, p_carrier="tcp", p_deviation_us=60_000),
        [(Cause.NAT, WAY)],
    ),
    "TCP carries it, evenly slow": (case(**SLOW, p_carrier="tcp"), [(Cause.HOP, WAY)]),
    # Large packets.
    "large packets vanish": (case(p_large_lost=True, p_mtu=1280), [(Cause.MTU, WAY)]),
    "large packets vanish, none is proven": (case(p_large_lost=True, p_mtu=None), [(Cause.MTU, WAY)]),
    "not even the base passes": (case(p_mtu=576), [(Cause.MTU, WAY)]),
    # The machines.
    "stolen at the far end": (case(**SLOW, **LATE, t_stolen_share=3_400), [(Cause.CPU, "sin-1")]),
    "withheld at the far end, which uses little": (case(**SLOW, **LATE), [(Cause.CPU, "sin-1")]),
    "busy at the far end": (case(**SLOW, **LATE, t_busy_share=9_900), [(Cause.CPU, "sin-1")]),
    "the node itself is busy": (
        case(**SLOW, **LATE, t_busy_share=9_900, t_own_share=8_000),
        [(Cause.CPU, "sin-1")],
    ),
    "late by whom nobody knows": (case(**SLOW, **LATE, t_own_share=None), [(Cause.CPU, "sin-1")]),
    "late, usual unknown": (case(**SLOW, **LATE, t_late_usual_us=None), [(Cause.CPU, "sin-1")]),
    "slow work, and all links of the far end are": (
        case(**SLOW, t_work_us=4_000, p_far_slow_others=4),
        [(Cause.CPU, "sin-1")],
    ),
    "busy here, all links of here are slow": (
        case(**SLOW, h_late_us=60_000, h_busy_share=9_900, p_slow_others=4),
        [(Cause.CPU, "fra-1")],
    ),
    "a starved relay": (
        relayed(400_000, replace(RELAY, late_us=230_000, stolen_share=4_000)),
        [(Cause.CPU, "ash-1")],
    ),
    "stolen, and no effect was measured": (
        case(**SLOW, t_stolen_share=4_000, t_late_us=None, t_work_us=None),
        [(Cause.CPU, "sin-1")],
    ),
    "two machines late together": (
        case(**SLOW, h_late_us=90_000, t_late_us=90_000, h_busy_share=9_000, t_busy_share=9_000),
        [(Cause.CPU, "fra-1"), (Cause.CPU, "sin-1")],
    ),
    "an ailing CPU, without symptoms": (case(t_ailments=sick("loop", 310)), [(Cause.CPU, "sin-1")]),
    "work that takes longer here": (case(h_ailments=sick("work", 90, "failed")), [(Cause.CPU, "fra-1")]),
    "memory at the far end": (case(**SLOW, **LATE, t_memory_share=3_000), [(Cause.MEMORY, "sin-1")]),
    "memory and CPU at the far end": (
        case(**SLOW, **LATE, t_memory_share=3_000, t_busy_share=9_900),
        [(Cause.MEMORY, "sin-1"), (Cause.CPU, "sin-1")],
    ),
    "much memory, and no effect on the node": (case(h_memory_share=6_000), [(Cause.MEMORY, "fra-1")]),
    "an ailing memory": (case(t_ailments=sick("memory"), t_memory_share=None), [(Cause.MEMORY, "sin-1")]),
    "a slow disk at the far end": (case(t_disk_us=1_900_000, t_disk_usual_us=12_000), [(Cause.DISK, "sin-1")]),
    "a slow disk here, usual unknown": (case(h_disk_us=900_000, h_disk_usual_us=None), [(Cause.DISK, "fra-1")]),
    "an ailing disk": (case(t_ailments=sick("disk"), t_disk_us=None), [(Cause.DISK, "sin-1")]),
    "a disk that makes the node late": (
        case(t_disk_us=900_000, t_late_us=300_000, t_io_share=7_000),
        [(Cause.DISK, "sin-1")],
    ),
    "clocks apart": (case(t_clock_ahead_ms=-7_200), [(Cause.CLOCK, "sin-1")]),
    "the far clock was set": (case(t_clock_stepped_s=-40, t_clock_ahead_ms=9_000), [(Cause.CLOCK, "sin-1")]),
    "the own clock was set": (case(h_clock_stepped_s=3_600), [(Cause.CLOCK, "fra-1")]),
    "slow answers of an ailing disk": (
        case(h_ailments=sick("answers:sin-1"), t_disk_us=800_000),
        [(Cause.DISK, "sin-1")],
    ),
    "slow answers of a starved node": (
        case(h_ailments=sick("answers:sin-1"), t_late_us=90_000, t_stolen_share=2_500),
        [(Cause.CPU, "sin-1")],
    ),
    "slow answers of nobody knows what": (case(h_ailments=sick("answers:sin-1")), UNEXPLAINED),
    # Rules and programs.
    "a rule": (case(service=WEB, s_allowed=False), [(Cause.RULE, "sin-1")]),
    "no rule, and the default": (case(service=WEB, s_allowed=False, s_rule=""), [(Cause.RULE, "sin-1")]),
    "direct only, and direct is silent": (
        case(p_state="away", p_forced="direct", p_best_other_rtt_us=171_000, p_best_other_name="ash-1"),
        [(Cause.RULE, "fra-1")],
    ),
    "nothing listens": (case(service=WEB, s_listening=False), [(Cause.PROGRAM, "sin-1")]),
    "a slow first byte": (case(service=WEB, s_first_byte_us=2_100_000), [(Cause.PROGRAM, "sin-1")]),
    "a first byte that nobody would wait for": (
        case(service=WEB, s_first_byte_us=4_000_000, s_first_byte_usual_us=None),
        [(Cause.PROGRAM, "sin-1")],
    ),
    "arrivals queue": (case(service=WEB, s_connect_us=1_050_000), [(Cause.PROGRAM, "sin-1")]),
    "a slow first byte, nothing known of the machine": (
        case(service=WEB, s_first_byte_us=2_100_000, there=None),
        [(Cause.PROGRAM, "sin-1")],
    ),
    "a slow first byte by the disk": (
        case(service=WEB, s_first_byte_us=2_100_000, t_disk_us=1_900_000),
        [(Cause.DISK, "sin-1")],
    ),
    "a first byte too slow for the disk": (
        case(service=WEB, s_first_byte_us=9_000_000, t_disk_us=90_000),
        [(Cause.PROGRAM, "sin-1"), (Cause.DISK, "sin-1")],
    ),
    # Two at once.
    "loss and a slow hop": (case(**SLOW, p_loss_out=3_100), [(Cause.LOSS, WAY), (Cause.HOP, WAY)]),
    "a slow hop and a little loss": (case(**SLOW, p_loss_out=200), [(Cause.HOP, WAY), (Cause.LOSS, WAY)]),
    "a slow hop and a slow program": (
        case(**SLOW, service=WEB, s_first_byte_us=3_000_000),
        [(Cause.PROGRAM, "sin-1"), (Cause.HOP, WAY)],
    ),
    "a slow hop and a machine that is a little late": (
        case(**SLOW, t_late_us=60_000, t_busy_share=9_900),
        [(Cause.HOP, WAY), (Cause.CPU, "sin-1")],
    ),
    "a starved machine that loses packets": (
        case(**SLOW, **LATE, t_stolen_share=4_000, p_loss_in=600),
        [(Cause.CPU, "sin-1"), (Cause.LOSS, "path sin-1 -> fra-1")],
    ),
    "large packets vanish among lost ones": (
        case(p_large_lost=True, p_loss_out=800),
        [(Cause.MTU, WAY), (Cause.LOSS, WAY)],
    ),
    "a detour and a slow disk": (
        relayed(260_000, t_disk_us=1_900_000),
        [(Cause.DISK, "sin-1"), (Cause.DETOUR, RELAYED)],
    ),
    "a rule and clocks apart": (
        case(service=WEB, s_allowed=False, t_clock_ahead_ms=5_000),
        [(Cause.RULE, "sin-1"), (Cause.CLOCK, "sin-1")],
    ),
    "a slow disk does not explain a slow path of which much is unknown": (
        case(**SLOW, there=None, h_disk_us=900_000),
        [(Cause.DISK, "fra-1"), (Cause.UNKNOWN, WAY)],
    ),
    # Not known: no cause is guessed.
    "slow, and the far end said nothing": (case(**SLOW, there=None), UNEXPLAINED),
    "slow, and the far end was not measured": (case(**SLOW, t_late_us=None, t_busy_share=None), UNEXPLAINED),
    "slow, and the far end is as late as that, which is usual": (
        case(p_rtt_us=28_000, p_usual_rtt_us=20_000, t_late_us=9_000),
        UNEXPLAINED,
    ),
    "slow, late, and usual is not known": (case(**SLOW, t_late_us=30_000, t_late_usual_us=None), UNEXPLAINED),
    "slow through a relay that said nothing": (
        relayed(400_000, None, p_usual_rtt_us=270_000),
        [(Cause.DETOUR, RELAYED), (Cause.UNKNOWN, RELAYED)],
    ),
    "everybody is slow from here, and here was not measured": (
        case(**SLOW, p_slow_others=4, h_late_us=None, h_busy_share=None),
        UNEXPLAINED,
    ),
    "away": (case(p_state="away", there=None, p_direct_reason="silent"), UNEXPLAINED),
    "away, like everybody from here": (case(p_state="away", p_slow_others=5), [(Cause.HOP, "the network of fra-1")]),
    "away from a machine that is ill": (
        case(p_state="away", p_slow_others=5, h_late_us=400_000, h_busy_share=9_900),
        [(Cause.CPU, "fra-1"), (Cause.UNKNOWN, WAY)],
    ),
    "never connected": (case(p_state="connecting", there=None), UNEXPLAINED),
    "degraded, and no number says why": (case(p_state="degraded", p_direct_reason="undelivered"), UNEXPLAINED),
    "degraded without a reason": (case(p_state="degraded"), UNEXPLAINED),
    "the relay's way is not measured": (relayed(0, p_rtt_us=None), [(Cause.UNKNOWN, RELAYED)]),
    # Decoys.
    "far, and as usual": (case(p_rtt_us=420_000, p_usual_rtt_us=415_000), NONE),
    "slower by what nobody feels": (case(p_rtt_us=3_500, p_usual_rtt_us=1_200), NONE),
    "slower by less than it strays": (case(p_rtt_us=250_000, p_deviation_us=120_000), NONE),
    "never measured before": (case(p_usual_rtt_us=None, p_rtt_us=900_000), NONE),
    "busy but quick": (case(t_busy_share=9_900, t_waiting_share=6_000), NONE),
    "stolen but quick": (case(t_stolen_share=2_500), NONE),
    "late, as usual": (case(t_late_us=40_000, t_late_usual_us=38_000), NONE),
    "memory short, and nothing late": (case(t_memory_share=1_500), NONE),
    "a slow disk of the relay": (
        relayed(171_000, replace(RELAY, disk_us=1_900_000, clock_ahead_ms=90_000)),
        [(Cause.NOTHING, RELAYED)],
    ),
    "a slow disk, as usual": (case(t_disk_us=40_000, t_disk_usual_us=38_000), NONE),
    "a slow disk of somebody else": (case(h_ailments=(*sick("disk:nyc-1"), *sick("answers:nyc-1"))), NONE),
    "a slow link to somebody else": (case(h_ailments=sick("link:nyc-1"), p_slow_others=1), NONE),
    "a stutter": (case(t_ailments=sick("cpu", state="stutter")), NONE),
    "disks are waited for, and this one is quick": (case(t_io_share=8_000), NONE),
    "clocks a second apart": (case(t_clock_ahead_ms=1_900), NONE),
    "clocks apart by what the way may have taken": (
        case(t_clock_ahead_ms=2_900, p_rtt_us=2_000_000, p_usual_rtt_us=1_990_000),
        NONE,
    ),
    "TCP carries it, and it is fine": (case(p_carrier="tcp"), NONE),
    "a relay that costs little": (relayed(171_000), [(Cause.NOTHING, RELAYED)]),
    "a relay that is quicker than direct": (relayed(150_000), [(Cause.NOTHING, RELAYED)]),
    "a near relay, never direct": (
        relayed(9_000, p_usual_rtt_us=9_000, p_direct_rtt_us=None, p_floor_us=None),
        [(Cause.NOTHING, RELAYED)],
    ),
    "a relay while direct is still tried": (
        relayed(171_000, p_direct_rtt_us=None, p_floor_us=None, p_direct_state="unknown", p_since_s=5),
        [(Cause.NOTHING, RELAYED)],
    ),
    "a narrow way that is known": (case(p_mtu=1312), NONE),
    "large packets pass, size unknown": (case(p_mtu=None), NONE),
    "no large packet was tried": (case(p_mtu=None, p_large_lost=None), NONE),
    "half a per cent is lost": (case(p_loss_out=50), NONE),
    "a program as slow as usual": (case(service=WEB, s_first_byte_us=2_000_000, s_first_byte_usual_us=1_900_000), NONE),
    "a program that is slow by less than the way": (
        case(service=WEB, s_first_byte_us=640_000, s_first_byte_usual_us=100_000),
        NONE,
    ),
    "a program of which nothing is known": (
        case(service=ServiceFacts(22), t_busy_share=None, t_own_share=None, t_stolen_share=None),
        NONE,
    ),
    "a program that listens": (case(service=WEB, s_first_byte_us=None, s_rule=""), NONE),
    "a program whose usual is unknown": (case(service=WEB, s_first_byte_us=900_000, s_first_byte_usual_us=None), NONE),
}


@pytest.mark.parametrize(("facts", "named"), TABLE.values(), ids=TABLE)
def test_what_is_named(facts: Facts, named: Named) -> None:
    told = diagnose(facts)
    assert [(one.cause, one.where) for one in told.findings] == named
    assert all(0 < len(text) <= TEXT_CHARS_MAX for text in texts(told))
    assert all(one.confidence >= 40 for one in told.findings if one.cause is not Cause.UNKNOWN)


def texts(told: Diagnosis) -> list[str]:
    sentences = [text for one in told.findings for text in (one.where, one.because, one.next)]
    return [*sentences, *told.not_it, *told.unknown, told.symptom]


def first(facts: Facts) -> str:
    return diagnose(facts).findings[0].because


def test_every_cause_is_in_the_table() -> None:
    assert {cause for _, named in TABLE.values() for cause, _ in named} == set(Cause)


def test_a_stolen_cpu_reads_otherwise_than_a_busy_one() -> None:
    stolen = diagnose(case(**SLOW, **LATE, t_stolen_share=3_400)).findings[0]
    busy = diagnose(case(**SLOW, **LATE, t_busy_share=9_900)).findings[0]
    own = diagnose(case(**SLOW, **LATE, t_busy_share=9_900, t_own_share=8_000)).findings[0]
    assert stolen.because == (
        "Others on the same hardware take 34 % of the CPU of sin-1; the node runs 180 ms late, usually 0.9 ms."
    )
    assert "provider" in stolen.next
    assert busy.because.startswith("Programs keep the CPU of sin-1 busy (99 % busy, 3 % by the node itself")
    assert busy.next == "on sin-1 run: top"
    assert own.because.startswith("The node itself uses 80 % of the CPU of sin-1")


def test_a_hop_is_told_with_both_numbers_and_what_clears_the_machines() -> None:
    assert first(case(**SLOW)) == (
        "Round trip 400 ms, usually 168 ms, while fra-1 and sin-1 themselves are not that late; "
        "0 of 5 other links of fra-1 are slow."
    )
    assert first(case(**SLOW, p_others=0)).endswith("not that late.")


def test_a_detour_is_told_with_why_direct_was_left() -> None:
    finding = diagnose(relayed(260_000)).findings[0]
    assert finding.because == (
        "The way through ash-1 takes 260 ms, direct 168 ms now; direct was left 3 min ago (lossy); "
        "it is suspect (lossy-out) now; direct loses 31 % of the packets there and 0 % of those back."
    )
    assert finding.weight_us == 92_000
    well_again = diagnose(relayed(260_000, p_direct_state="ok")).findings[0]
    assert well_again.next.startswith("nothing needed")


def test_a_standing_detour_does_not_explain_what_is_slower_than_usual() -> None:
    told = diagnose(relayed(450_000, p_usual_rtt_us=260_000))
    assert [(one.cause, one.weight_us) for one in told.findings] == [(Cause.HOP, 190_000), (Cause.DETOUR, 92_000)]


def test_a_good_relay_is_told_under_not_it() -> None:
    rivals = "relay: through ash-1 takes 171 ms, direct 168 ms now"
    losses = "direct loses 31 % of the packets there and 0 % of those back"
    assert f"{rivals}; {losses}" in diagnose(relayed(171_000)).not_it


def test_what_is_well_is_told_with_its_number() -> None:
    told = diagnose(case(service=WEB))
    assert set(told.not_it) >= {
        "MTU: packets of 1408 bytes pass",
        "disk of sin-1: a durable write takes 1.2 ms, usually 1.1 ms",
        "clock of sin-1: 20 ms from this one",
        "loss: 0.1 % of the packets there and 0 % of those back",
        "round trip: 171 ms, usually 168 ms",
        "rule: fra-1 may reach tcp/443 of sin-1 by allow * -> *:443 (atoll.toml:2)",
        "program: first byte after 42 ms, usually 40 ms",
    }
    assert told.unknown == ()
    assert told.symptom == "round trip 171 ms, usually 168 ms"
    assert "MTU: packets of 1312 bytes pass (of at most 1408)" in diagnose(case(p_mtu=1312)).not_it


def test_what_is_not_known_is_told_and_lowers_the_confidence() -> None:
    told = diagnose(case(there=None))
    assert told.unknown == ("CPU, memory, disk and clock of sin-1: it did not say",)
    assert told.findings[0].confidence < diagnose(WELL).findings[0].confidence
    unknown = diagnose(Facts(path=PathFacts(relay=True, floor_us=1_000))).unknown
    assert "CPU and memory of the relay: it did not say" in unknown
    assert "relay: what the way through the relay takes is not measured" in unknown
    parts = diagnose(case(t_disk_us=40_000, t_disk_usual_us=None, t_clock_ahead_ms=None, t_clock_stepped_s=None))
    assert parts.unknown == (
        "disk of sin-1: 40 ms, and what is usual is not known",
        "clock of sin-1: not compared",
    )


def test_what_nobody_explains_says_who_is_silent() -> None:
    finding = diagnose(case(**SLOW, there=None)).findings[0]
    assert finding.because == (
        "Round trip 400 ms, usually 168 ms: none of what was checked explains it, "
        "and it is not known how late sin-1 ran."
    )
    assert finding.next == "ask the other end, on sin-1 run: atoll why fra-1"
    assert finding.confidence == 0
    known = diagnose(case(p_state="degraded")).findings[0]
    assert known.next == "ask again while it lasts: atoll why sin-1"


def test_a_policy_that_forbids_relays_is_named_as_the_way_out() -> None:
    forced = {"p_forced": "direct", "p_best_other_rtt_us": 171_000, "p_best_other_name": "ash-1"}
    told = diagnose(case(p_loss_out=3_000, **forced))
    assert told.findings[0].next == 'let "direct" use relays: through ash-1 it would take 171 ms'
    free = diagnose(case(p_loss_out=3_000, p_best_other_rtt_us=171_000))
    assert free.findings[0].next.endswith("; direct it would take 171 ms")


def test_an_ailment_is_told_with_its_age_and_depth() -> None:
    assert "its event loop takes 3.1 times as long as usual, for 4 min" in first(case(t_ailments=sick("loop", 310)))
    assert "its usual piece of work takes longer than usual" in first(case(h_ailments=sick("work", 90)))
    assert "wait for memory 2.5 times as long" in first(case(t_ailments=sick("memory"), t_memory_share=None))


def test_an_ailment_without_an_age_is_told_without_one() -> None:
    assert "for 0 s" not in first(case(t_ailments=(Fault("disk", "slow"),)))


def test_packets_that_vanish_are_told_from_the_least_one_on() -> None:
    assert first(case(p_large_lost=True, p_mtu=1280)).startswith("Packets of 1280 bytes and more vanish on the path")
    assert first(case(p_large_lost=True, p_mtu=None)).startswith("Packets of 1280 bytes and more vanish on the path")
    assert first(case(p_mtu=1000)).startswith("Packets of more than 1000 bytes vanish on the path")


def test_a_fault_that_a_number_shows_is_surer_than_one_that_was_only_told() -> None:
    shown, told = case(t_disk_us=900_000), case(t_ailments=sick("disk"))
    assert diagnose(shown).findings[0].confidence > diagnose(told).findings[0].confidence


def test_a_slow_program_is_surer_where_its_machine_is_known_to_be_well() -> None:
    slow = {"service": WEB, "s_first_byte_us": 2_100_000}
    assert diagnose(case(**slow)).findings[0].confidence > diagnose(case(**slow, there=None)).findings[0].confidence
    queue = diagnose(case(service=WEB, s_connect_us=1_050_000, p_rtt_us=None)).findings[0]
    assert queue.because == "The program at tcp/443 of sin-1 takes a connection after 1.05 s."


def test_texts_of_others_cannot_write_on_a_terminal() -> None:
    facts = case(service=WEB, s_allowed=False, s_rule="\x1b[2J" + "x" * 500, s_line="\n", s_port=10**5000)
    told = diagnose(replace(facts, here=replace(HERE, name="\x07" * 99)))
    assert all(text.isprintable() and len(text) <= TEXT_CHARS_MAX for text in texts(told))


def test_a_sentence_is_cut_where_it_would_be_too_long() -> None:
    long: dict[str, Any] = {"p_direct_state": "x" * 99, "p_direct_reason": "y" * 99, "p_cause": "z" * 99}
    facts = replace(relayed(900_000, **long), relay_name="r" * 99, there_name="t" * 99)
    names = replace(facts, here=replace(HERE, name="h" * 99), service=replace(WEB, allowed=False, rule="r" * 99))
    assert max(map(len, texts(diagnose(names)))) <= TEXT_CHARS_MAX


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (None, "-"),
        (-5, "0.0 ms"),
        (940, "0.9 ms"),
        (1_234, "1.2 ms"),
        (171_900, "171 ms"),
        (1_900_000, "1.90 s"),
        (90_000_000, "90 s"),
        (600_000_000, "10 min"),
    ],
)
def test_times_have_two_or_three_digits(us: int | None, text: str) -> None:
    assert took(us) == text


def test_spans_and_shares() -> None:
    assert [span(one) for one in (0, 119, 120, 7_200, 200_000)] == ["0 s", "119 s", "2 min", "2 h", "2 days"]
    shares = [per_cent(one) for one in (None, 0, 4, 10, 999, 1_050, 99_999)]
    assert shares == ["0 %", "0 %", "0.0 %", "0.1 %", "9.9 %", "10 %", "100 %"]


def test_facts_and_diagnoses_travel() -> None:
    facts = relayed(260_000, service=WEB, h_ailments=sick("cpu"))
    both = Codec[Facts](Facts, bytes_max=4096, name="facts"), Codec[Diagnosis](Diagnosis, bytes_max=8192, name="told")
    assert both[0].decode(both[0].encode(facts)) == facts
    told = diagnose(facts)
    assert both[1].decode(both[1].encode(told)) == told
