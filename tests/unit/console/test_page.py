"""The page is one document that asks nobody but the process it came from."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

import pytest

from minilog.console.page import PAGE_BYTES_MAX, SCRIPTS, page
from minilog.errors import NotAcceptable
from minilog.wire.http import HTML, JSON, accepted

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def test_the_page_is_small_and_whole() -> None:
    text = page().body.decode()
    assert len(page().body) <= PAGE_BYTES_MAX
    assert "/*script*/" not in text
    assert "/*style*/" not in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text), "nothing comes from elsewhere"
    assert not re.search(r"\son[a-z]+=", text), "no handler is written into an element"


def test_every_source_of_the_page_is_in_it() -> None:
    named = {path.name.removesuffix(".js") for path in (resources.files("minilog.console") / "page").iterdir()}
    assert named - {"index.html", "console.css"} == set(SCRIPTS)


@pytest.mark.parametrize("element", ["script", "style"])
def test_the_policy_names_what_is_in_the_page_and_nothing_else(element: str) -> None:
    policy = dict(part.split(" ", 1) for part in page().headers["Content-Security-Policy"].split("; "))
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", page().body.decode(), re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert policy[f"{element}-src"] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    assert (policy["frame-ancestors"], policy["require-trusted-types-for"]) == ("'none'", "'script'")


def test_no_script_makes_html_of_text() -> None:
    text = page().body.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in text, f"{word} would make HTML or code of what a record says"


@pytest.mark.parametrize(
    ("header", "media"), [(BROWSER, HTML), ("*/*", JSON), (None, JSON), ("application/json", JSON), ("text/html", HTML)]
)
def test_a_browser_gets_the_page_and_a_program_json(header: str | None, media: str) -> None:
    assert accepted(header, (JSON, HTML)) == media


def test_who_takes_neither_is_told() -> None:
    with pytest.raises(NotAcceptable):
        accepted("image/png", (JSON, HTML))
