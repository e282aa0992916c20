"""Every snippet of the README and of the pages in minilog/docs runs as it stands, and prints what
the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.process.rig.snippets import PAGES, README, RUN, Session, SnippetFailed, blocks_of, check_page, comparable


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with closing(Session(tmp_path)) as made:
        yield made


@pytest.fixture(scope="module")
def with_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """What the pages ask for in their first lines."""
    with closing(Session(tmp_path_factory.mktemp("pages"))) as made:
        made.sh("minilog dev up --detach")
        yield made


def test_the_readme_does_what_it_says(session: Session) -> None:
    check_page(session, README)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page: Path, with_cluster: Session) -> None:
    blocks = blocks_of(page)
    if any(block.language in RUN and not block.is_test for block in blocks):
        assert "`minilog dev up --detach`" in page.read_text(), "say what cluster the snippets need"
    without_topics(with_cluster)
    check_page(with_cluster, page)


def without_topics(session: Session) -> None:
    """What a page has made is no business of the next one."""
    session.begin()
    for topic in json.loads(session.sh("minilog topic list -o json")):
        if not topic["topic"].startswith("__"):
            session.sh(f"minilog topic delete {topic['topic']} --yes")


def test_a_snippet_that_fails_is_told_with_its_place(session: Session, tmp_path: Path) -> None:
    session.sh("x=1")
    with pytest.raises(SnippetFailed, match="No such file"):
        session.sh("echo begins\ncat /nowhere\necho goes on")
    session.begin()
    assert session.sh("echo ${x:-nothing} is left of the page before") == "nothing is left of the page before\n"


def test_only_what_varies_is_not_compared() -> None:
    assert comparable("a  1 b\n") == comparable("a 1  b")
    assert comparable('"offset":1') != comparable('"offset":2')
    assert comparable("http://h:8082  4711  running") == comparable("http://h:8082 912 running")
    assert comparable("http://h:8082") != comparable("http://h:8083")
    assert comparable('"timestamp":1795999393243') == comparable('"timestamp":1795999393999')
    assert comparable("stopped after 0.1 s") == comparable("stopped after 0.3 s")
    assert comparable("2 records") != comparable("3 records")


def test_an_output_belongs_to_the_block_before_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.process.rig.snippets.ROOT", tmp_path)
    page = tmp_path / "README.md"
    page.write_text("```sh\necho 1\n```\n\nprints:\n\n```text\n1\n```\n\n```text\nshown\n```\n")
    assert [(block.language, block.printed) for block in blocks_of(page)] == [("sh", "1\n"), ("text", None)]
    page.write_text("```\nx\n```\n")
    with pytest.raises(AssertionError, match=re.escape("README.md:1: say what language")):
        blocks_of(page)
