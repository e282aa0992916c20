"""What is read before anybody is known: whatever a header holds, it is a token, nothing, or 401."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.core.access.policy import Shown
from minilog.errors import InvalidRequest, Unauthenticated
from minilog.security_file import parse_security
from minilog.server.security.credential import certificate_names, refuse_token_in, shown_token

POLICY = parse_security("[principals.a]\nroles = ['admin']", "f").policy


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "token"),
    [
        (None, ""),
        ("Bearer mlt_abc", "mlt_abc"),
        ("bearer  mlt_abc ", "mlt_abc"),
        (basic("anybody:mlt_abc"), "mlt_abc"),
        (basic(":mlt_abc"), "mlt_abc"),
    ],
)
def test_a_token_is_found(header: str | None, token: str) -> None:
    assert shown_token(header) == token


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer a b", "Basic", "Basic !!!", "Digest x", basic("no colon"), "Bearer " + "a" * 600],
)
def test_anything_else_is_401(header: str) -> None:
    with pytest.raises(Unauthenticated):
        shown_token(header)


@given(
    st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1"))),
    st.sampled_from(["", "Bearer ", "Basic "]),
)
def test_no_header_is_anybody_or_says_itself_again(rest: str, scheme: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        POLICY.known_by(Shown(shown_token(scheme + rest)), 0)
    assert len(rest) < 12 or rest not in caught.value.detail


@pytest.mark.parametrize("target", ["/v1/topics?token=x", "/v1/topics?a=1&access_token=x", "/mlt_" + "a" * 43])
def test_a_token_in_a_url_is_refused_and_not_repeated(target: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        refuse_token_in(target)
    assert "a" * 20 not in caught.value.detail


def test_a_topic_may_be_called_token() -> None:
    refuse_token_in("/v1/topics/token/partitions/0/records?offset=1")


def test_a_certificate_names_principals_by_uri_only() -> None:
    named = (("DNS", "minilog://x"), ("URI", "minilog://orders"), ("URI", "https://other"), ("URI", "minilog://b/"))
    assert certificate_names({"subjectAltName": named}) == ("orders", "b")
    assert certificate_names({}) == certificate_names(None) == ()
