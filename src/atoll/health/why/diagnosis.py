# SPDX-License-Identifier: Apache-2.0
"""Decides why it is slow from one machine to another: from what is known at the moment of asking to named causes.

Theory of operation. First the *symptoms* are established: what is slow, lossy, silent or refused. Then every cause is
checked, each against its own numbers, and notes which symptoms it explains. What explains nothing but is ill is told
all the same, because it may be what the asker felt. A symptom that is left over is told as UNKNOWN.

Rules of this file:

1. A wrong cause is worse than none. A number speaks against a component only if it is beyond a limit of its kind and
   beyond what is usual for it; a number that nobody has is no evidence, and goes to ``unknown``.
2. Machines (``machines.py``) come before the network, because a machine that runs late makes all of its paths look
   slow. The network is named only when every machine on the way is known not to explain it.
3. An effect is needed, not a load: a CPU that is busy and quick is well.
4. All that others said of themselves is taken for text and numbers of any size: nothing here raises, and every
   sentence is bounded and prints.
"""

from typing import Final

from atoll.health.why.case import FIRST, LOSS_SHARE_MIN, Case, Machine, Symptom, above, note_symptoms
from atoll.health.why.facts import (
    Cause,
    Diagnosis,
    Facts,
    Fault,
    Finding,
    HostFacts,
    PathFacts,
    ServiceFacts,
)
from atoll.health.why.machines import judge_machine
from atoll.health.why.wording import (
    REASON_CHARS_MAX,
    TEXT_CHARS_MAX,
    WHOLE,
    ago,
    in_brackets,
    links_slow,
    listed,
    number,
    round_trip,
    shares_lost,
    since,
    took,
    usually,
    word,
)

__all__ = [
    "TEXT_CHARS_MAX",
    "Cause",
    "Diagnosis",
    "Facts",
    "Fault",
    "Finding",
    "HostFacts",
    "PathFacts",
    "ServiceFacts",
    "diagnose",
]

LOSS_SHARE_SURE: Final = 300  # 1/10000: six of two hundred probes are no chance.
LOSS_OUT_US: Final = 1_000_000  # What certain loss costs: about TCP's least wait after a lost tail ...
LOSS_IN_US: Final = 250_000  # ... and of an acknowledgement, of which the next one makes up for most.
DETOUR_US_MIN: Final = 10_000  # A relay: less is not felt ...
DETOUR_PERCENT: Final = 20  # ... and of the direct way; the choice of paths calls much less than that equal.
NAT_S_MIN: Final = 60  # A direct way that is tried for so long and was never measured is none.
NAT_US_MIN: Final = 20_000  # A way that is always relayed and quicker than this is nobody's trouble.
TCP_DEVIATION_US_MIN: Final = 10_000  # TCP waits at least so long for what was lost; a way that strays less lost none.
DIRECT_SLOW_PERCENT: Final = 150  # Of the least ever seen, which is less than usual: so it takes more than 125.
MTU_BASE_BYTES: Final = 1280  # The least that every IPv6 link carries.
MTU_US: Final = 1_000_000  # What a swallowed large packet costs: TCP's first wait, at the least.
CONNECT_US_MIN: Final = 900_000  # Of a connection on one machine: a second is what a full queue of arrivals costs.
HOST_TIMES: Final = 10  # A program waits for its machine up to so often for one answer.
PATH_TIMES: Final = 4  # A program's wait that is less than so many round trips is not what is felt.
REFUSED_US: Final = 30_000_000  # What "not at all" costs: about how long programs try. It comes before all else.


def diagnose(facts: Facts) -> Diagnosis:
    """Return why it is slow, as far as the facts show it. Nothing in them can make this raise."""
    case = Case(facts)
    note_symptoms(case)
    for machine in case.machines:
        judge_machine(case, machine)
    _judge_silence(case)
    if Symptom.SILENT not in case.symptoms:
        _judge_loss(case)
        _judge_mtu(case)
        _judge_detour(case)
        _judge_tcp(case)
        _judge_hop(case)
    _judge_service(case)
    return case.told()


def _judge_silence(case: Case) -> None:
    path = case.path
    if Symptom.SILENT not in case.symptoms:
        return
    other = _other(case)
    if path.forced and path.best_other_rtt_us is not None and path.best_other_name:
        policy = word(path.forced, REASON_CHARS_MAX)
        because = f'The policy "{policy}" keeps these packets off relays, and the direct way is silent; {other}.'
        advice = "use another tag, such as --tag latency, or let this one use relays in atoll.toml"
        case.name(Finding(Cause.RULE, case.here.name, because, 90, REFUSED_US, advice), Symptom.SILENT)
    elif case.here.is_crowd and case.here.is_judged and not case.found(case.here.name, Cause.CPU, Cause.MEMORY):
        because = (
            f"Nothing comes from {case.there.name}, and {links_slow(path.slow_others, path.others, case.here.name)}."
        )
        advice = f"look at the network connection of {case.here.name}: its router, its provider"
        network = f"the network of {case.here.name}"
        case.name(Finding(Cause.HOP, network, because, 70, REFUSED_US, advice), Symptom.SILENT)


def _judge_loss(case: Case) -> None:
    path = case.path
    out, back = path.loss_out or 0, path.loss_in or 0
    if Symptom.LOSSY not in case.symptoms:
        if path.loss_out is None and path.loss_in is None:
            case.unknown.append("loss: not measured")
        else:
            case.clear(Cause.LOSS, "", f"loss: {shares_lost(path.loss_out, path.loss_in)}")
        return
    where, links = _where_lossy(case), ""
    card = _bad_card(case)
    if card is not None:
        fault = card.ailment("net")
        links = f"; the network card of {card.name} drops or damages more packets than usual{since(fault)}"
    elif case.here.is_crowd and not case.there.is_crowd:
        links = f"; {links_slow(path.slow_others, path.others, case.here.name)}"
    ill = any(case.found(one.name, Cause.CPU, Cause.MEMORY) for one in case.machines)
    confidence = 70 if ill else 95 if max(out, back) >= LOSS_SHARE_SURE else 75  # A late machine loses packets, too.
    weight_us = (number(out) * LOSS_OUT_US + number(back) * LOSS_IN_US) // WHOLE
    because = f"On the {case.way}, {shares_lost(path.loss_out, path.loss_in)} are lost{links}."
    finding = Finding(Cause.LOSS, where, because, confidence, weight_us, _way_out(case))
    case.name(finding, Symptom.LOSSY, Symptom.DOUBTFUL, Symptom.ANSWERS)


def _bad_card(case: Case) -> Machine | None:
    """Return the machine on the way whose network card drops or damages more packets than usual, by its own word."""
    return next((machine for machine in case.machines if machine.ailment("net") is not None), None)


def _where_lossy(case: Case) -> str:
    """Return where packets are lost, if they are."""
    card = _bad_card(case)
    if card is not None:
        return f"the network card of {card.name}"
    if case.here.is_crowd and not case.there.is_crowd:
        return f"the network of {case.here.name}"
    if (case.path.loss_out or 0) >= LOSS_SHARE_MIN:
        return case.way
    return "path " + " -> ".join(reversed(case.way.removeprefix("path ").split(" -> ")))


def _judge_mtu(case: Case) -> None:
    path = case.path
    narrow = path.mtu if path.mtu is not None and path.mtu < MTU_BASE_BYTES else None
    if path.large_lost or narrow is not None:
        which = f"{MTU_BASE_BYTES} bytes and more" if narrow is None else f"more than {number(narrow)} bytes"
        because = f"Packets of {which} vanish on the {case.way}, while small ones pass."
        confidence = 60 if Symptom.LOSSY in case.symptoms else 90  # Then large ones may be lost like any other.
        advice = f"find the link that swallows them: on {case.here.name} run tracepath to {case.there.name}'s address"
        case.name(Finding(Cause.MTU, case.way, because, confidence, MTU_US, advice))
    elif path.mtu is not None:
        most = f" (of at most {number(path.mtu_most)})" if path.mtu < path.mtu_most else ""
        case.clear(Cause.MTU, "", f"MTU: packets of {number(path.mtu)} bytes pass{most}")
    elif path.large_lost is False:
        case.clear(Cause.MTU, "", "MTU: large packets pass")
    else:
        case.unknown.append("MTU: no large packet was tried")


def _judge_detour(case: Case) -> None:
    path, rtt_us = case.path, case.path.rtt_us
    if not path.relay:
        if path.state:
            case.clear(Cause.DETOUR, "", "relay: none in use")
        return
    is_now = _is_measured(path) or path.floor_us is None
    direct_us = path.direct_rtt_us if is_now else path.floor_us
    if rtt_us is None:
        case.unknown.append(f"relay: what the way through {case.relay.name} takes is not measured")
        return
    if direct_us is None:
        _judge_nat(case, rtt_us)
        return
    when = "now" if is_now else "at best"
    rivals = f"through {case.relay.name} takes {took(rtt_us)}, direct {took(direct_us)} {when}"
    longer_us = rtt_us - direct_us - sum(case.late_us.values())
    losses = shares_lost(path.direct_loss_out, path.direct_loss_in)
    lost = f"; direct loses {losses}" if path.direct_loss_out or path.direct_loss_in else ""
    if not _is_longer(longer_us, direct_us):
        case.clear(Cause.DETOUR, "", f"relay: {rivals}{lost}")
        return
    # A relay that has been in use for long is what is usual, and does not explain that it is slower than usual.
    usual_us = path.usual_rtt_us
    is_standing = usual_us is not None and _is_longer(usual_us - direct_us, direct_us)
    if is_standing and usual_us is not None:
        longer_us = min(longer_us, usual_us - direct_us)
    lossy = case.found(_where_lossy(case), Cause.LOSS)
    direct_loss = max(path.direct_loss_out or 0, path.direct_loss_in or 0)
    if lossy and (direct_loss >= LOSS_SHARE_MIN or path.cause == "lossy"):
        longer_us = min(longer_us, lossy[0].weight_us - 1)  # All ways lose packets: the way round follows from that.
    left = f"; direct was left{ago(path.since_s)}{in_brackets(path.cause)}" if path.cause or path.since_s else ""
    state = f"; it is {word(path.direct_state)}{in_brackets(path.direct_reason)} now" if path.direct_state else ""
    advice = f"find out what breaks the direct {case.direct}; it is taken again after 60 s below 1 % loss"
    finding = Finding(
        Cause.DETOUR,
        case.way,
        f"The way {rivals}{left}{state}{lost}.",
        (90 if is_now else 80) - (0 if case.relay.is_judged else 15),
        longer_us,
        "nothing needed: direct is taken again after 60 s below 1 % loss" if path.direct_state == "ok" else advice,
    )
    case.name(finding, *(() if is_standing else (Symptom.SLOW,)))


def _judge_nat(case: Case, rtt_us: int) -> None:
    """Judge a relay in use where no packet is known to have ever gone directly."""
    path, relay = case.path, case.relay.name
    through = f"through {relay} {took(rtt_us)}"
    if path.direct_state == "ok" or rtt_us < NAT_US_MIN:
        case.clear(Cause.NAT, "", f"relay: {through}")
        return
    if path.direct_state != "failed" and (path.since_s or 0) < NAT_S_MIN:
        case.unknown.append(f"direct way: not measured yet; packets go {through}")
        return
    pair = f"{case.here.name} and {case.there.name}"
    because = f"No packet is known to have ever gone directly between {pair}; all go {through}."
    advice = f"let UDP in from outside at {case.here.name} or {case.there.name}: forward the port that atoll up names"
    case.name(Finding(Cause.NAT, case.direct, because, 60, 0, advice))


def _judge_tcp(case: Case) -> None:
    path = case.path
    if path.carrier != "tcp":
        return
    strays = path.deviation_us is not None and path.deviation_us >= TCP_DEVIATION_US_MIN
    if case.slow_unexplained and strays:
        because = (
            "Packets go by TCP, because UDP does not get through, and each lost one holds up the next ones: "
            f"round trip {took(path.rtt_us)}{usually(path.usual_rtt_us)}, "
            f"and it strays by {took(path.deviation_us)}."
        )
        advice = f"let UDP through between {case.here.name} and {case.there.name}"
        case.name(Finding(Cause.NAT, case.way, because, 60, case.rest_us, advice), Symptom.SLOW)
    elif Symptom.SLOW not in case.symptoms and path.rtt_us is not None:
        case.clear(Cause.NAT, "", f"carrier: TCP, {round_trip(path)}")


def _judge_hop(case: Case) -> None:
    path, here, there = case.path, case.here, case.there
    if Symptom.SLOW not in case.symptoms:
        if path.rtt_us is None or path.usual_rtt_us is None:
            what = "not measured" if path.rtt_us is None else f"{took(path.rtt_us)}, and what is usual is not known"
            case.unknown.append(f"round trip: {what}")
        else:
            case.clear(Cause.HOP, "", f"round trip: {took(path.rtt_us)}{usually(path.usual_rtt_us)}")
        return
    if not case.slow_unexplained:
        return
    if 2 * case.rest_us < case.excess_us:  # Two machines that are late together.
        case.explained.add(Symptom.SLOW)
        return
    if 2 * _lateness_us(case) >= case.excess_us:
        case.unknown.append(f"path hop: {listed([one.name for one in case.machines])} are late enough to be it as well")
        return
    symptom = case.symptoms[Symptom.SLOW].capitalize()
    provider = "show the numbers to the providers of both ends"
    near = links_slow(path.slow_others, path.others, here.name)
    far = links_slow(path.far_slow_others, path.far_others, there.name)
    if here.is_crowd != there.is_crowd:
        end, links = (here, near) if here.is_crowd else (there, far)
        if not end.is_judged:
            case.unknown.append(f"{links}: whether {end.name} is late itself is not known")
            return
        advice = f"look at the network connection of {end.name}: its router, its provider"
        because = f"{symptom}, and {links}, while {end.name} itself is not late."
        case.name(Finding(Cause.HOP, f"the network of {end.name}", because, 80, case.rest_us, advice), *_HOP_EXPLAINS)
        return
    if not all(one.is_judged for one in case.machines):
        return  # A machine that is late would look the same.
    if here.is_crowd:
        because = f"{symptom}; {near}, and {far}."
        case.name(Finding(Cause.HOP, case.way, because, 50, case.rest_us, provider), *_HOP_EXPLAINS)
        return
    where, because = _hop(case, symptom)
    if path.others > 0:
        because += f"; {near}"
    confidence = 65 if case.late_us else 80
    case.name(Finding(Cause.HOP, where, f"{because}.", confidence, case.rest_us, _way_out(case)), *_HOP_EXPLAINS)


_HOP_EXPLAINS: Final = (Symptom.SLOW, Symptom.DOUBTFUL, Symptom.ANSWERS)


def _lateness_us(case: Case) -> int:
    """Return how late all machines ran, that included which is no fault."""
    hosts = [one.facts for one in case.machines if one.facts is not None]
    return sum(above(one.late_us, one.late_usual_us) for one in hosts) - sum(case.late_us.values())


def _hop(case: Case, symptom: str) -> tuple[str, str]:
    """Return which part of the way is slow, and why that one, where the machines are not."""
    path, floor_us, direct_us = case.path, case.path.floor_us, case.path.direct_rtt_us
    machines = f"{symptom}, while {listed([one.name for one in case.machines])} themselves are not that late"
    if not path.relay:
        return case.way, machines
    if (
        floor_us is not None
        and direct_us is not None
        and _is_measured(path)
        and direct_us >= (path.rtt_us or 0)
        and direct_us * 100 >= floor_us * DIRECT_SLOW_PERCENT
        and direct_us - floor_us >= DETOUR_US_MIN
    ):
        return case.direct, f"{machines}; direct takes {took(direct_us)} now, {took(floor_us)} at best"
    if case.here.ailment(f"link:{case.relay.name}") is not None:
        return f"path {case.here.name} -> {case.relay.name}", f"{machines}; {case.here.name} finds this link slow"
    if case.relay.ailment(f"link:{case.there.name}") is not None:
        return f"path {case.relay.name} -> {case.there.name}", f"{machines}; {case.relay.name} finds this link slow"
    return case.way, machines


def _judge_service(case: Case) -> None:
    service, there = case.facts.service, case.there.name
    if service is None:
        return
    port = f"{word(service.protocol, 8) or 'tcp'}/{number(service.port)}"
    rule, line = word(service.rule, REASON_CHARS_MAX), in_brackets(service.line)
    if service.allowed is False:
        case.symptoms[Symptom.SERVICE] = f"{case.here.name} may not reach {port} of {there}"
        what = f'The rule "{rule}"{line}' if rule else "The default, as no rule matches,"
        because = f"{what} of {there} does not let {case.here.name} reach {port}."
        advice = f"allow it in atoll.toml of {there}, and there run: atoll config apply"
        case.name(Finding(Cause.RULE, there, because, 99, REFUSED_US, advice), Symptom.SERVICE)
        return
    if service.allowed is None:
        case.unknown.append(f"rule: {there} did not say who may reach {port}")
    else:
        by = f" by {rule}{line}" if rule else ""
        case.clear(Cause.RULE, "", f"rule: {case.here.name} may reach {port} of {there}{by}")
    if service.listening is False:
        case.symptoms[Symptom.SERVICE] = f"nothing answers at {port} of {there}"
        because = f"No program listens at {port} of {there}."
        advice = f"start it there; what listens, on {there} run: ss -lntu"
        case.name(Finding(Cause.PROGRAM, there, because, 95, REFUSED_US, advice), Symptom.SERVICE)
        return
    _judge_program(case, service, port)


def _judge_program(case: Case, service: ServiceFacts, port: str) -> None:
    """Judge how soon a program answers that does."""
    there, first_us, usual_us = case.there.name, service.first_byte_us, service.first_byte_usual_us
    verdict = FIRST.passed(first_us, usual_us)
    queued = service.connect_us is not None and service.connect_us >= CONNECT_US_MIN
    wait_us = max(above(first_us, usual_us) if verdict else 0, (service.connect_us or 0) if queued else 0)
    if not wait_us or wait_us < PATH_TIMES * (case.path.rtt_us or 0):
        if first_us is None or verdict is None:
            known = "listens, but when" if service.listening else "when"
            said = "is not measured" if first_us is None else f"usually is not known; now after {took(first_us)}"
            case.unknown.append(f"program: {known} {port} of {there} answers {said}")
        else:
            case.clear(Cause.PROGRAM, "", f"program: first byte after {took(first_us)}{usually(usual_us)}")
        return
    words = f"sends its first byte after {took(first_us)}{usually(usual_us)}" if verdict else ""
    takes = f"takes a connection after {took(service.connect_us)}" if queued else ""
    case.symptoms[Symptom.SERVICE] = f"{port} of {there} {' and '.join(filter(None, (takes, words)))}"
    ills = case.found(there, Cause.CPU, Cause.MEMORY, Cause.DISK)
    if any(one.weight_us * HOST_TIMES >= wait_us for one in ills):
        case.explained.add(Symptom.SERVICE)
        return
    is_known = case.there.is_judged and case.there.facts is not None and case.there.facts.disk_us is not None
    small = f", while the round trip is {took(case.path.rtt_us)}" if case.path.rtt_us is not None else ""
    because = f"The program at {case.symptoms[Symptom.SERVICE]}{small}."
    advice = f"on {there} look into the program's own log; it is late before the network begins"
    confidence = 50 if ills else 85 if is_known else 60
    case.name(Finding(Cause.PROGRAM, there, because, confidence, wait_us, advice), Symptom.SERVICE)


def _way_out(case: Case) -> str:
    """Return what to do about a bad path."""
    path = case.path
    if path.forced and path.best_other_name and path.best_other_rtt_us is not None:
        return f'let "{word(path.forced, REASON_CHARS_MAX)}" use relays: {_other(case)}'
    other = f"; {_other(case)}" if path.best_other_rtt_us is not None else ""
    return f"nothing to do on these machines: show the numbers to the providers of both ends{other}"


def _other(case: Case) -> str:
    name = word(case.path.best_other_name)
    return f"{f'through {name}' if name else 'direct'} it would take {took(case.path.best_other_rtt_us)}"


def _is_measured(path: PathFacts) -> bool:
    """Whether the direct round trip is one of now: that of a path that failed is an old one."""
    return path.direct_rtt_us is not None and path.direct_state in {"ok", "suspect"}


def _is_longer(longer_us: int, direct_us: int) -> bool:
    return longer_us >= DETOUR_US_MIN and longer_us * 100 >= direct_us * DETOUR_PERCENT
