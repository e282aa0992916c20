"""wire/routes.py: what one side writes as a path, the other side reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilog.errors import InvalidRequest, MethodNotAllowed, MinilogError, UnknownRoute
from minilog.wire.http import Start
from minilog.wire.routes import ROUTES, Route, match, parse_query, path_of

topics = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True).filter(lambda name: name not in (".", ".."))


@settings(max_examples=40)
@given(st.sampled_from(ROUTES), topics, st.integers(0, 2**31 - 1))
def test_every_path_leads_back_to_its_route(wanted: Route, topic: str, partition: int) -> None:
    pairs = {
        "topic": topic,
        "partition": partition,
        "group": topic,
        "member": topic,
        "tail": f"{topic}-{partition}:0-1-{partition}",
    }
    values: dict[str, Any] = {name: pairs[name] for name in pairs if "{" + name + "}" in wanted.path}
    target = path_of(wanted.name, **values)
    found = match(wanted.method, target)
    assert (found.route, found.values, found.path) == (wanted, values, target)


def refusal(method: str, target: str) -> MinilogError | None:
    try:
        match(method, target)
    except MinilogError as error:
        return error
    return None


@settings(max_examples=40)
@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "DELETE", "X"]))
def test_any_target_matches_or_is_refused_with_a_typed_error(tail: str, method: str) -> None:
    for prefix in ("", "/", "/v1/topics/", "/v1/topics/t/partitions/"):
        error = refusal(method, prefix + tail)
        assert error is None or (error.definite and error.detail.isprintable())


@settings(max_examples=40)
@given(st.binary(max_size=30))
def test_any_key_travels_through_a_query(key: bytes) -> None:
    target = path_of("produce_topic", {"key": key, "acks": "all"}, topic="t")
    found = match("POST", target)
    assert parse_query(found.route, found.query) == {"key": key, "acks": -1}


def test_plus_is_a_space_in_queries_only() -> None:
    found = match("POST", "/v1/topics/t/records?key=a+b%2Bc")
    assert parse_query(found.route, found.query) == {"key": b"a b+c"}
    with pytest.raises(MinilogError):
        match("GET", "/v1/topics/a+b")


def test_escaped_names_are_the_same_names_and_become_canonical() -> None:
    found = match("GET", "/v1/topics/%6frders/partitions/%31/records?offset=%35")
    assert found.values == {"topic": "orders", "partition": 1}
    assert found.path == "/v1/topics/orders/partitions/1/records"
    assert parse_query(found.route, found.query) == {"offset": Start(offset=5)}


def test_head_is_get_and_other_methods_name_what_is_allowed() -> None:
    assert match("HEAD", "/v1/topics").route.name == "list_topics"
    with pytest.raises(MethodNotAllowed) as caught:
        match("PUT", "/v1/topics/t")
    assert caught.value.info["allow"] == ["DELETE", "GET", "HEAD", "PATCH"]


@pytest.mark.parametrize("target", ["", "v1/topics", "host:80", "ftp://a/v1/topics"])
def test_targets_that_are_no_paths(target: str) -> None:
    with pytest.raises(InvalidRequest, match="must be a path"):
        match("GET", target)


@pytest.mark.parametrize("target", ["/v1/cluster/what-if"])
def test_routes_of_later_stages_do_not_exist(target: str) -> None:
    with pytest.raises(UnknownRoute, match=target):
        match("GET", target)
