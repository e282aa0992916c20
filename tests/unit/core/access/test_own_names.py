"""Under which names a process may be asked, and whose pages may ask (DNS rebinding)."""

from __future__ import annotations

import pytest

from minilog.core.access.own_names import OwnNames
from minilog.errors import Forbidden

NAMES = OwnNames(frozenset({"broker-1.example.org"}), frozenset({"https://app.example.org"}))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (None, None),
        ("localhost:8082", None),
        ("LOCALHOST", None),
        ("localhost.:8082", None),
        ("127.0.0.1:8082", None),
        ("10.1.2.3", None),
        ("[::1]:8082", None),
        ("broker-1.example.org:8082", None),
        ("Broker-1.Example.org", None),
        ("localhost:8082", "http://localhost:8082"),
        ("localhost:8082", "https://app.example.org"),
    ],
)
def test_its_own_names_are_taken(host: str | None, origin: str | None) -> None:
    NAMES.check(host, origin)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None),
        ("evil.example:8082", "http://evil.example:8082"),
        ("localhost.evil.example", None),
        ("127.0.0.1.evil.example", None),
        ("broker-1.example.org.evil.example", None),
        ("localhost:8082", "http://evil.example"),
        ("localhost:8082", "http://localhost:3000"),
        ("localhost:8082", "null"),
        ("localhost:8082", "ftp://localhost:8082"),
        (None, "http://evil.example"),
    ],
)
def test_others_are_refused(host: str | None, origin: str | None) -> None:
    with pytest.raises(Forbidden):
        NAMES.check(host, origin)


def test_a_setting_can_take_any() -> None:
    OwnNames(frozenset({"*"}), frozenset({"*"})).check("evil.example", "null")
