"""Asking every broker of a cluster for the lost records that it keeps: each knows its own alone."""

from __future__ import annotations

from typing import NamedTuple

from minilog.cli.api import Api
from minilog.cli.output import CliError, ExitCode, note
from minilog.cli.request import Unanswered, send
from minilog.errors import MinilogError
from minilog.wire.http import BATCH
from minilog.wire.json.json_answers import LostList, LostTailInfo
from minilog.wire.routes import path_of

ASK_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0


class Found(NamedTuple):
    """``unasked``: brokers that did not answer, so what they keep is not known."""

    tails: list[LostTailInfo]
    urls: dict[int, str]
    unasked: list[int]


def find(url: str | None) -> Found:
    """Says on stderr who could not be asked."""
    urls = {broker.broker_id: broker.url for broker in Api(url).metadata().brokers}
    tails: list[LostTailInfo] = []
    unasked: list[int] = []
    for broker_id, its_url in sorted(urls.items()):
        try:
            tails += Api(its_url, ASK_TIMEOUT_S).get("list_lost", LostList).tails
        except MinilogError as error:
            unasked.append(broker_id)
            note(f"broker {broker_id} cannot be asked, so what it keeps is not known: {error.detail}")
    return Found(sorted(tails, key=lambda tail: (tail.cut_at_ms, tail.tail, tail.broker_id)), urls, unasked)


def copies(found: Found, name: str, broker: int | None) -> list[LostTailInfo]:
    """Every copy of that tail, the one that is being written again first. Raises CliError, also
    when the name means records of two topics, one made anew after the other."""
    fitting = [tail for tail in found.tails if tail.tail == name and broker in (None, tail.broker_id)]
    if not fitting:
        where = "" if broker is None else f" on broker {broker}"
        unasked = f"; brokers {', '.join(map(str, found.unasked))} could not be asked" if found.unasked else ""
        raise CliError(
            f"there are no lost records named {name!r}{where}{unasked}; `minilog lost list` shows what there is"
        )
    topic_ids = {tail.topic_id for tail in fitting} - {""}
    if len(topic_ids) > 1:
        of = ", ".join(f"of topic id {tail.topic_id or 'unknown'} on broker {tail.broker_id}" for tail in fitting)
        raise CliError(f"{name} is several things ({of}): {name.partition('-')[0]} was made anew; --broker says which")
    return sorted(fitting, key=lambda tail: tail.replay is None)


def whose(found: Found, tail: LostTailInfo) -> str:
    """Where the records are that were left to other copies of them than ``tail``, and what to
    do."""
    others = [
        other
        for other in found.tails
        if (other.topic, other.partition) == (tail.topic, tail.partition)
        and (other.broker_id, other.tail) != (tail.broker_id, tail.tail)
        and (other.topic_id == tail.topic_id or "" in (other.topic_id, tail.topic_id))
        and other.base_offset < tail.end_offset
        and tail.base_offset < other.end_offset
    ]
    unwritten = [other for other in others if other.replay is None or not other.replay.finished]
    if tail.left_open and not unwritten:
        return (
            "which are not all written yet, and no broker that answered keeps one: once the broker that had claimed them "
            f"has registered with another data directory, `minilog lost replay {tail.tail}` writes these, too"
        )
    if unwritten:
        commands = ", ".join(f"`minilog lost replay {other.tail} --broker {other.broker_id}`" for other in unwritten)
        return f"which are not all written yet: {commands} goes on"
    if others:
        return "which are written"
    return f"of which no broker that answered keeps one: `minilog lost export {tail.tail}` prints what is here"


def read_batches(url: str, tail: LostTailInfo, offset: int) -> bytes:
    """Whole batches from ``offset`` on, empty behind the last one."""
    address = url.rstrip("/") + path_of("read_lost", {"offset": str(offset)}, tail=tail.tail)
    try:
        return send(address, "GET", READ_TIMEOUT_S, headers={"Accept": BATCH}, media=BATCH)
    except Unanswered as failure:
        raise CliError(f"broker {tail.broker_id} at {url}: {failure.reason}", ExitCode.UNREACHABLE) from None
