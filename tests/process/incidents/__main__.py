"""``python -m tests.process.incidents [NAME ...]``: play incidents, print what a person would read,
and rate it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.process.incidents import pages, table
from tests.process.incidents.catalogue import CATALOGUE
from tests.process.incidents.play import Play, play
from tests.process.incidents.ratings import QUESTIONS, Rating, rate
from tests.process.rig import equipment, prometheus

SCRAPE_S = 5
"""As in config/prometheus.yml."""


def main(arguments: Sequence[str] | None = None) -> int:
    wanted = _parse(arguments)
    names = wanted.names or list(CATALOGUE)
    if wanted.page:
        ratings = table.load(wanted.json, list(CATALOGUE))
        table.write_page(ratings, wanted.about)
        return 0
    if reason := prometheus.unavailable() or pages.unavailable():
        print(f"cannot play: {reason}", file=sys.stderr)
        return 3
    ratings = []
    for name in names:
        if (found := _play(name, wanted)) is None:
            continue
        ratings.append(found)
        if wanted.json:
            table.save([found], wanted.json)
    print(table.text(ratings))
    return 0 if ratings and all(rating.is_full for rating in ratings) else 1


def _play(name: str, wanted: argparse.Namespace) -> Rating | None:
    incident, missing = CATALOGUE[name], equipment.missing()
    if reason := next((missing[need] for need in incident.needs if need in missing), None):
        print(f"{name}: left out, {reason}")
        return None
    folder = Path(wanted.folder or tempfile.mkdtemp(prefix="incidents-")) / name
    began_s = time.monotonic()
    try:
        played = play(incident, folder, wanted.scrape_s)
        rating = rate(played)
    except Exception:
        print(f"{name}: could not be played; see {folder}\n{traceback.format_exc()}")
        return Rating(name, incident.what, missing={question: ["it could not be played"] for question in QUESTIONS})
    read = _read(played)
    (folder / "told.txt").write_text(read)
    if wanted.names:
        print(read)
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    print(table.text([rating]) + f"\n({time.monotonic() - began_s:.0f} s, load {load}, {folder})", flush=True)
    return rating


def _read(played: Play) -> str:
    """What a person would read, in the order in which a person would."""
    rung = [
        f"{page.at_s - played.measured.began_s:6.1f} s  {page.severity:8}  {page.alert}: {page.summary}"
        for page in played.pages.rung
    ]
    parts = [f"=== {played.incident.what}", "--- pages", *rung]
    for moment, told in (("while it lasts", played.during), ("when it is mended", played.after)):
        for name, text in told.texts.items():
            parts += [f"--- {name}, {moment}", text.rstrip()]
    lost = ", ".join(f"acks={acks} {count}" for acks, count in played.measured.lost.items())
    silences = ", ".join(f"{name} {s:.2f} s" for name, s in played.measured.silences_s.items())
    parts += ["--- what clients measured", f"without a write: {silences}", f"acknowledged and gone: {lost}"]
    return "\n".join(parts) + "\n"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.process.incidents", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *CATALOGUE], help=", ".join(CATALOGUE))
    parser.add_argument("--folder", help="where clusters, logs and what was told are kept")
    parser.add_argument("--json", type=Path, help="the ratings, added to what the file has of other incidents")
    parser.add_argument("--page", action="store_true", help="play nothing: write the table of the docs from --json")
    parser.add_argument("--about", default="", help="a sentence on the machine, for the page")
    parser.add_argument("--scrape-s", type=int, default=SCRAPE_S, help="interval of scrapes and rules")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
