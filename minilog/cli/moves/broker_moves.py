"""``minilog broker drain``, ``replace``, ``spread`` and ``decommission``: all replicas off a
broker, or a share of them onto new ones, and the end of one. The controller plans."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from minilog.cli.api import Api, UrlOption
from minilog.cli.moves.carrying_out import POLL_S, DryRunOption, NoWaitOption, YesOption, move_by_plan
from minilog.cli.output import ExitCode, Format, OutputOption, note

BrokerArgument = Annotated[int, typer.Argument(help="Broker id.")]


def drain(
    broker: BrokerArgument,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Move everything off a broker, to those that run: racks are kept apart, and who has fewest
    gets most.

    Exit code 0 when nothing is left on it, 1 when something has to stay.
    """
    options = {"dry_run": dry_run, "yes": yes, "no_wait": no_wait}
    return _carry_out(Api(url), {"off": [broker]}, output, options)


def replace(
    old: Annotated[int, typer.Argument(help="Broker id that is to have nothing any more.")],
    new: Annotated[int, typer.Argument(help="Broker id that takes its place.")],
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Move everything that one broker has to another one."""
    options = {"dry_run": dry_run, "yes": yes, "no_wait": no_wait}
    return _carry_out(Api(url), {"off": [old], "onto": [new]}, output, options)


def spread(
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Move replicas from the brokers that have most to those that have fewest, as after a broker
    was added, until all have about as many."""
    options = {"dry_run": dry_run, "yes": yes, "no_wait": no_wait}
    return _carry_out(Api(url), {"spread": True}, output, options)


def decommission(
    broker: BrokerArgument,
    yes: YesOption = False,
    url: UrlOption = None,
    output: OutputOption = Format.table,
) -> int:
    """Take a broker out of the cluster: move everything off it, wait until its process is stopped,
    and forget it.

    Begin again where it was interrupted: what is done already is not done twice.
    """
    api = Api(url)
    code = _carry_out(api, {"off": [broker]}, output, {"dry_run": False, "yes": yes, "no_wait": False})
    if code != ExitCode.FINE:
        return code
    if _is_up(api, broker):
        note(f"broker {broker} holds nothing any more; stop its process now, and this command goes on")
    try:
        while _is_up(api, broker):
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        note(f"broker {broker} is a member of the cluster still; say the same again when it is stopped")
        return ExitCode.REFUSED
    api.change("remove_broker", broker=broker)
    note(f"broker {broker} is no member of the cluster any more")
    return ExitCode.FINE


def _is_up(api: Api, broker_id: int) -> bool:
    """Registered, and not given up by the controller."""
    return any(one.broker_id == broker_id and one.state != "fenced" for one in api.metadata().brokers)


def _carry_out(api: Api, wanted: dict[str, Any], output: Format, options: dict[str, bool]) -> int:
    plan = api.plan_moves(wanted)
    for problem in plan.problems:
        note(f"stays: {problem}")
    code = move_by_plan(api, plan.moves, output, **options)
    return code or (ExitCode.REFUSED if plan.problems else ExitCode.FINE)
