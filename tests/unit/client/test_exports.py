"""What an application meets can be imported from the top, and says what it is."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import minilog_client
from minilog import errors

BETWEEN_PROCESSES = {
    errors.StaleBrokerEpoch,
    errors.NotController,
    errors.DuplicateBrokerId,
    errors.InvalidFetchSession,
    errors.InvalidUpdateVersion,
    errors.IneligibleReplica,
}
"""No client hears of them."""
EXPORTED = {name: getattr(minilog_client, name) for name in minilog_client.__all__}


def members(kind: type[Any]) -> Iterator[Any]:
    return (
        member for name, member in inspect.getmembers(kind) if not name.startswith("_") and inspect.isroutine(member)
    )


def test_every_error_that_a_client_can_meet_is_exported_and_says_what_it_is() -> None:
    bases: list[type[errors.MinilogError]] = [errors.MinilogError, errors.RetriableError, errors.FatalError]
    for error in [*bases, *errors.ERRORS_BY_CODE.values()]:
        assert vars(error).get("__doc__"), error
        if error not in BETWEEN_PROCESSES:
            assert EXPORTED.get(error.__name__) is error


@pytest.mark.parametrize("name", [name for name, kind in EXPORTED.items() if inspect.isclass(kind)])
def test_what_a_docstring_names_as_raised_is_exported(name: str) -> None:
    known = {name for name, kind in vars(errors).items() if inspect.isclass(kind)}
    texts = [EXPORTED[name].__doc__ or "", *(inspect.getdoc(member) or "" for member in members(EXPORTED[name]))]
    for text in texts:
        assert {word for word in re.findall(r"\b[A-Z]\w+", text) if word in known} <= EXPORTED.keys()
