from __future__ import annotations

import ast
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from minilog.errors import InvalidAcks, InvalidRequest
from minilog_client import options as typed
from minilog_client import settings as settings_module
from minilog_client.client import settings_from
from minilog_client.settings import ClientSettings, ConsumerSettings, GroupSettings, ProducerSettings, acks_number
from minilog_client.values import checked_bytes, checked_headers, checked_values


@pytest.mark.parametrize(("acks", "number"), [("all", -1), (0, 0), (1, 1), (3, 3)])
def test_acks(acks: Any, number: int) -> None:
    assert acks_number(acks) == number


@pytest.mark.parametrize("acks", ["ALL", -1, 33, True, 1.0, None])
def test_bad_acks_are_refused_with_what_was_seen(acks: Any) -> None:
    with pytest.raises(InvalidAcks, match=r"acks is .*allowed are"):
        ProducerSettings(acks=acks)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (ProducerSettings, {"linger_ms": -1}, "linger_ms is -1"),
        (ProducerSettings, {"linger_ms": "5"}, "linger_ms is '5'"),
        (ProducerSettings, {"compression": "brotli"}, "allowed are none, gzip"),
        (ProducerSettings, {"retries": 3}, "allowed are all, definite, none"),
        (ProducerSettings, {"idempotent": 1}, "idempotent is 1; allowed are True and False"),
        (ProducerSettings, {"retries": "none"}, "or say idempotent=False"),
        (ProducerSettings, {"serializer": str}, "there is no option 'serializer'; allowed are acks, batch_bytes"),
        (ProducerSettings, {"batch_bytes": 2048, "buffer_bytes": 1024}, "more than buffer_bytes"),
        (ProducerSettings, {"delivery_timeout_ms": 0}, "delivery_timeout_ms is 0"),
        (ProducerSettings, {"lingerms": 1}, "there is no option 'lingerms'"),
        (ConsumerSettings, {"read_from": "follower"}, "allowed are leader, any"),
        (ConsumerSettings, {"out_of_range": "reset"}, "allowed are raise, earliest, latest"),
        (ConsumerSettings, {"max_lag_ms": -2}, "max_lag_ms is -2"),
        (ClientSettings, {"request_timeout_ms": True}, "request_timeout_ms is True"),
    ],
)
def test_impossible_options_are_refused_by_name(kind: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        settings_from(kind, options)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: checked_bytes("value", "text"), r"value must be bytes, got str; encode it"),
        (lambda: checked_bytes("key", 5), "key must be bytes, got int"),
        (lambda: checked_values(b"one"), "values must be many bytes objects, got one bytes"),
        (lambda: checked_values([b"a", None]), r"values\[1\] is None"),
        (lambda: checked_values([b"a", "b"]), r"values\[1\] must be bytes, got str"),
        (lambda: checked_headers({"a": "text"}), "header a must be bytes, got str"),
        (lambda: checked_headers([("a", b"", 1)]), "a header must be a pair"),
        (lambda: checked_headers({1: b""}), "a header's name must be a string, got int"),
    ],
)
def test_wrong_types_are_named(check: Callable[[], object], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        check()


def test_without_retries_there_is_nothing_to_number() -> None:
    assert ProducerSettings().idempotent is True
    assert ProducerSettings(retries="none", idempotent=False).retries == "none"
    assert ProducerSettings(retries="definite").idempotent is True


def test_bytes_like_input_becomes_bytes() -> None:
    assert checked_bytes("value", bytearray(b"a")) == b"a"
    assert checked_values([memoryview(b"a"), b"b"]) == [b"a", b"b"]
    assert checked_values(iter([b"a"])) == [b"a"]
    assert checked_headers({"a": None, "b": b"1"}) == (("a", None), ("b", b"1"))


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (typed.ClientOptions, [ClientSettings]),
        (typed.ProducerOptions, [ProducerSettings]),
        (typed.ConsumerOptions, [ConsumerSettings]),
        (typed.GroupOptions, [ConsumerSettings, GroupSettings]),
    ],
)
def test_what_type_checkers_allow_is_what_there_is(options: type[Any], settings: list[type[Any]]) -> None:
    allowed = {name: kind for made in settings for name, kind in get_type_hints(made).items()}
    assert get_type_hints(options) == allowed


def test_every_option_has_a_sentence() -> None:
    source = ast.parse(Path(settings_module.__file__).read_text(encoding="utf-8"))
    for made in (node for node in source.body if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")):
        told = ast.get_docstring(made) or ""
        for option, behind in pairwise([*made.body, ast.Pass()]):
            if isinstance(option, ast.AnnAssign):
                name = ast.unparse(option.target)
                assert isinstance(behind, ast.Expr) or f"``{name}``" in told, f"{made.name}.{name} says nothing"
