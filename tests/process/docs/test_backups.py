"""The page about backups, followed to the letter: every snippet, on a cluster of the page's own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from tests.process.rig.snippets import BACKUPS, Session, check_page


def test_what_the_page_about_backups_says_is_what_happens(tmp_path: Path) -> None:
    with closing(Session(tmp_path)) as session:
        check_page(session, BACKUPS)
