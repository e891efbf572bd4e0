# SPDX-License-Identifier: Apache-2.0
"""A diagnosis of anything: it never raises, always says something, and never contradicts itself."""

from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from atoll.health.why.diagnosis import Cause, Diagnosis, Facts, Fault, HostFacts, PathFacts, ServiceFacts, diagnose

CHARS_MAX: Final = 400
NAMES: Final = st.one_of(st.sampled_from(["fra-1", "sin-1", "ash-1", ""]), st.text(max_size=600))
TEXTS: Final = st.one_of(st.sampled_from(["", "ok", "suspect", "failed", "silent"]), st.text(max_size=600))
NUMBERS: Final = st.one_of(
    st.integers(0, 3_000_000), st.integers(0, 12_000), st.integers(), st.sampled_from([10**5000, -(10**5000), 1 << 64])
)
MAYBE: Final = st.none() | NUMBERS
COMPONENTS: Final = ["cpu", "memory", "disk", "loop", "net", "link:sin-1", "link:ash-1", "answers:sin-1"]
AILMENTS: Final = st.builds(
    Fault,
    st.sampled_from(COMPONENTS) | st.text(),
    st.sampled_from(["stutter", "slow", "failed"]) | st.text(),
    NUMBERS,
    NUMBERS,
)
HOSTS: Final = st.builds(HostFacts, NAMES, *[MAYBE] * 14, st.lists(AILMENTS, max_size=4).map(tuple))
PATHS: Final = st.builds(
    PathFacts,
    state=st.sampled_from(["ok", "degraded", "away", "connecting"]) | TEXTS,
    relay=st.booleans(),
    direct_state=TEXTS,
    direct_reason=TEXTS,
    direct_rtt_us=MAYBE,
    direct_loss_out=MAYBE,
    direct_loss_in=MAYBE,
    rtt_us=MAYBE,
    usual_rtt_us=MAYBE,
    deviation_us=MAYBE,
    loss_out=MAYBE,
    loss_in=MAYBE,
    floor_us=MAYBE,
    best_other_rtt_us=MAYBE,
    best_other_name=NAMES,
    since_s=MAYBE,
    cause=TEXTS,
    forced=TEXTS,
    carrier=st.sampled_from(["udp", "tcp"]) | TEXTS,
    mtu=MAYBE,
    mtu_most=NUMBERS,
    large_lost=st.none() | st.booleans(),
    slow_others=NUMBERS,
    others=NUMBERS,
    far_slow_others=NUMBERS,
    far_others=NUMBERS,
)
SERVICES: Final = st.builds(
    ServiceFacts,
    NUMBERS,
    TEXTS,
    st.none() | st.booleans(),
    TEXTS,
    TEXTS,
    st.none() | st.booleans(),
    MAYBE,
    MAYBE,
    MAYBE,
)
FACTS: Final = st.builds(
    Facts,
    here=HOSTS,
    there=st.none() | HOSTS,
    there_name=NAMES,
    relay=st.none() | HOSTS,
    relay_name=NAMES,
    path=PATHS,
    service=st.none() | SERVICES,
)
OF_MACHINES: Final = {
    Cause.CPU: "CPU of {}:",
    Cause.MEMORY: "memory of {}:",
    Cause.DISK: "disk of {}:",
    Cause.CLOCK: "clock of {}:",
}
OF_PATHS: Final = {
    Cause.HOP: ("round trip:",),
    Cause.LOSS: ("loss:",),
    Cause.MTU: ("MTU:",),
    Cause.DETOUR: ("relay:",),
    Cause.NAT: ("carrier:",),
    Cause.RULE: ("rule:",),
    Cause.PROGRAM: ("program:",),
}


def texts(told: Diagnosis) -> list[str]:
    sentences = [text for one in told.findings for text in (one.where, one.because, one.next)]
    return [*sentences, *told.not_it, *told.unknown, told.symptom]


@given(FACTS)
@example(Facts())
def test_it_never_raises_and_always_says_something_fit_to_be_shown(facts: Facts) -> None:
    told = diagnose(facts)
    assert told.findings
    assert all(text and len(text) < CHARS_MAX and text.isprintable() for text in texts(told))
    assert all(0 <= one.confidence <= 100 and 0 <= one.weight_us < 1 << 63 for one in told.findings)


@given(FACTS)
def test_nothing_is_both_a_cause_and_well(facts: Facts) -> None:
    told = diagnose(facts)
    for one in told.findings:
        begin = (OF_MACHINES[one.cause].format(one.where),) if one.cause in OF_MACHINES else OF_PATHS.get(one.cause, ())
        assert not [text for text in told.not_it if begin and text.startswith(begin)]


@given(FACTS)
def test_the_costliest_comes_first_and_what_is_not_a_cause_last(facts: Facts) -> None:
    told = diagnose(facts)
    weights = [one.weight_us for one in told.findings]
    assert weights == sorted(weights, reverse=True)
    vague = [one.cause in (Cause.NOTHING, Cause.UNKNOWN) for one in told.findings]
    assert vague == sorted(vague)
    assert not (told.findings[0].cause is Cause.NOTHING and len(told.findings) > 1)


@given(FACTS)
def test_the_same_facts_give_the_same_words(facts: Facts) -> None:
    assert diagnose(facts) == diagnose(facts)


@given(FACTS)
def test_nobody_is_accused_of_what_was_not_measured(facts: Facts) -> None:
    told = diagnose(Facts(HostFacts("fra-1"), None, "sin-1", path=facts.path))
    assert not {one.cause for one in told.findings} & set(OF_MACHINES)
    assert not [one for one in told.findings if one.cause is Cause.HOP]
