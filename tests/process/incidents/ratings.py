"""The plain checks: each of the four questions is answered in full, or the rating says what is
missing. Pure functions of what was told and what was measured.

1. What happened: the right page in time and no other, and events that name the cause and the place.
2. What was lost: the counts by acks are those that clients and disks know.
3. How long: the times agree with those of clients, or of who broke and mended it.
4. What now: health names the state, its place and a next step, whose commands work; and all is well
   when that was done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tests.process.incidents.incident import FAILOVER
from tests.process.incidents.play import Play

QUESTIONS: Final = ("happened", "lost", "long", "now")
OFF_S: Final = 1.0
OFF_SHARE: Final = 0.25
"""Told and measured may differ by the larger of the two: a client notices late, and retries."""
ENDS_OFF_S: Final = 10.0
"""An ISR shrinks after replica_lag_max_ms, and a state ends when it was away for some seconds."""
CLOCKS_OFF_MS: Final = 100.0


@dataclass
class Rating:
    """``missing``: by question, what is missing of the full answer; empty when nothing is.
    ``answers``: what minilog said, in short."""

    name: str
    what: str
    paged_s: float | None = None
    pages: list[str] = field(default_factory=list)
    wrong_pages: list[str] = field(default_factory=list)
    missing: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        return not any(self.missing.values())


def rate(play: Play) -> Rating:
    found = Rating(play.incident.name, play.incident.what)
    checks = {"happened": _happened, "lost": _lost, "long": _how_long, "now": _what_now}
    for question, check in checks.items():
        found.missing[question] = check(play, found)
    return found


def _happened(play: Play, rating: Rating) -> list[str]:
    incident, missing = play.incident, []
    rating.pages = [page.alert for page in play.pages.rung]
    right = {incident.page, *incident.also}
    rating.wrong_pages = sorted({alert for alert in rating.pages if alert not in right})
    if rating.wrong_pages:
        missing.append(f"paged for {', '.join(rating.wrong_pages)}")
    if incident.page:
        page = play.pages.first(incident.page)
        rating.paged_s = None if page is None else round(page.at_s - play.measured.began_s, 1)
        if rating.paged_s is None or rating.paged_s > incident.within_s:
            missing.append(f"no {incident.page} within {incident.within_s:.0f} s")
    told = _events(play)
    kinds = {event["kind"] for event in told}
    missing += [f"no event {kind}" for kind in incident.events if kind not in kinds]
    named = [event for event in told if event["kind"] in incident.events and _names(event, play.place)]
    if incident.events and not named:
        missing.append(f"no event names {' or '.join(sorted(play.place))}")
    telling = [event for event in named if incident.says in event["sentence"]]
    if named and not telling:
        missing.append(f"no event says {incident.says!r}")
    still = sorted(set(incident.panels) - play.moved)
    if still:
        missing.append(f"nothing is to be seen in the panels {', '.join(still)}")
    if incident.logged not in play.logged:
        missing.append(f"the log of the broker does not say {incident.logged!r}")
    rating.answers["happened"] = telling[0]["sentence"] if telling else ""
    return missing


def _events(play: Play) -> list[dict[str, Any]]:
    """What was told while it lasted and what was told later, each once."""
    found: dict[str, dict[str, Any]] = {}
    for event in [*play.during.events, *play.after.events]:
        if event["at_ms"] >= play.measured.began_s * 1000 - CLOCKS_OFF_MS or event["kind"] == "clock_skew":
            found[f"{event['at_ms']} {event['kind']} {event['sentence']}"] = event
    return list(found.values())


def _names(told: dict[str, Any], place: set[str]) -> bool:
    """``told``: an event or a finding."""
    at = {f"broker {told.get('broker_id')}", told.get("topic"), f"{told.get('topic')}-{told.get('partition')}"}
    return bool(at & place) or any(name in told["sentence"] for name in place) or not place


def _lost(play: Play, rating: Rating) -> list[str]:
    """Quarantine holds what was acknowledged with acks=1 and lost, and perhaps what was not yet
    acknowledged. What was committed is lost by an unclean election alone, whose event counts it."""
    by_acks = play.after.lost
    dropped = sum(_missing_of(event) for event in _events(play) if event["kind"] == "unclean_election")
    rating.answers["lost"] = f"acks=1: {by_acks['1']}, committed: {dropped}"
    if not play.reads_all:
        return []
    measured, missing = play.measured.lost, []
    slack = play.measured.tried[1] - len(play.clients.acked[1])
    if not measured[1] <= by_acks["1"] <= measured[1] + slack:
        missing.append(f"{measured[1]} of acks=1 are lost, {by_acks['1']} are told")
    if measured["all"] > 0 and not 0 < dropped <= measured["all"] + play.measured.tried["all"]:
        missing.append(f"{measured['all']} of acks=all are lost, {dropped} are told")
    if measured["all"] == 0 and dropped:
        missing.append(f"{dropped} of acks=all are told to be lost, and all are there")
    if play.incident.loses and not sum(measured.values()):
        missing.append("nothing was lost, so the incident was none")
    return missing


def _missing_of(event: dict[str, Any]) -> int:
    return int(event.get("facts", {}).get("missing", 0))


def _how_long(play: Play, rating: Rating) -> list[str]:
    wanted = play.incident.how_long
    if wanted == FAILOVER:
        return _failover(play, rating)
    if not wanted:
        rating.answers["long"] = "nothing was refused"
        worst_s = max(play.measured.silences_s.values(), default=0.0)
        return [f"no write for {worst_s:.1f} s, and nothing says so"] if worst_s > ENDS_OFF_S else []
    began, ended = (_at_s(play, kind) for kind in wanted)
    if not began or not ended:
        return [f"no event {kind}" for kind, at in zip(wanted, (began, ended), strict=True) if not at]
    told_s, true_s = ended[-1] - began[0], play.measured.mended_s - play.measured.began_s
    rating.answers["long"] = f"{told_s:.1f} s (it lasted {true_s:.1f} s)"
    off_s = max(ENDS_OFF_S, true_s * OFF_SHARE)
    return [] if abs(told_s - true_s) <= off_s else [f"told {told_s:.1f} s, lasted {true_s:.1f} s"]


def _at_s(play: Play, kind: str) -> list[float]:
    events = [event for event in _events(play) if event["kind"] == kind and _names(event, play.place)]
    return sorted(event["at_ms"] / 1000 for event in events)


def _failover(play: Play, rating: Rating) -> list[str]:
    began_ms = play.measured.began_s * 1000 - CLOCKS_OFF_MS
    told = [info for info in play.after.failovers if info["detected_ms"] >= began_ms]
    if not told:
        return ["no failover is told"]
    missing = [f"failover {info['number']} has no restored_ms" for info in told if info.get("restored_ms") is None]
    writes = {name: ms / 1000 for info in told for name, ms in info.get("first_writes", ())}
    if not all(info.get("is_heard", True) for info in told):
        rating.answers["long"] = "said to be unknown: the controller was away, too"
        return missing
    known = {name: s for name, s in writes.items() if name in play.measured.silences_s}
    for name, told_s in known.items():
        measured_s = play.measured.silences_s[name]
        if abs(told_s - measured_s) > max(OFF_S, measured_s * OFF_SHARE):
            missing.append(f"{name}: told {told_s:.1f} s without a write, measured {measured_s:.1f} s")
    if not known:
        missing.append("no first write of a partition that it led is told")
    shown = ", ".join(f"{name} {s:.2f} s ({play.measured.silences_s[name]:.2f})" for name, s in sorted(known.items()))
    rating.answers["long"] = shown
    return missing


def _what_now(play: Play, rating: Rating) -> list[str]:
    incident, missing = play.incident, list(play.failed_commands)
    if incident.finding:
        found = [told for told in play.during.findings if told["kind"] == incident.finding]
        there = next((told for told in found if _names(told, play.place)), None)
        if there is None:
            said = sorted({told["kind"] for told in play.during.findings})
            missing.append(f"health has no {incident.finding} at {' or '.join(sorted(play.place))}, but {said}")
        else:
            rating.answers["now"] = there["next_step"]
            printed = " ".join(play.during.texts["health"].split())
            if not there["next_step"] or there["next_step"] not in printed:
                missing.append(f"`minilog cluster health` does not print a next step for {incident.finding}")
    elif play.during.findings:
        missing.append(f"nothing is to be done, and health finds {play.during.findings[0]['kind']}")
    left = sorted({told["kind"] for told in play.after.findings} - {incident.stays})
    if left:
        missing.append(f"after it was mended health still finds {', '.join(left)}")
    return missing
