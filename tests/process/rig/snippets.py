"""The snippets of the documentation, run as they stand, in a network namespace where the ports they
name are free.

The blocks of one page run in order: ``sh`` blocks in one bash, ``python`` blocks in one namespace.
A bash block ends at the first command that fails, and that is an error. A python block that defines
tests runs under pytest. ``toml`` blocks are parsed. Other languages (``text``, ``yaml``) are only shown,
unless the line before the block says ``prints:``. Then the block is what the block before it has
printed, on stdout and stderr, but for times, ids and process numbers.

``python -m tests.process.rig.snippets PAGE...`` runs pages against a new cluster and shows what
each block has printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from minilog.cli.local.cluster import DEV_FILE, DevCluster

ROOT: Final = Path(__file__).parents[3]
README: Final = ROOT / "README.md"
BACKUPS: Final = ROOT / "minilog" / "docs" / "backups.md"
"""It makes a cluster of its own."""
PAGES: Final = sorted(set((ROOT / "minilog" / "docs").glob("*.md")) - {BACKUPS})
RUN: Final = {"sh", "python"}
PARSED: Final = {"toml"}
SHOWN: Final = {"text", "yaml"}
BLOCK_TIMEOUT_S: Final = 60.0
HOME_SHOWN: Final = "/home/you"
STATE: Final = Path(".local/state/minilog/dev")


@dataclass(frozen=True)
class Block:
    """``printed`` is what the page says that the block prints; None where the page says nothing."""

    page: Path
    line: int
    language: str
    text: str
    printed: str | None = None

    @property
    def is_test(self) -> bool:
        return self.language == "python" and re.search(r"^def test_", self.text, re.MULTILINE) is not None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


# --- reading pages --------------------------------------------------------------------------------


def blocks_of(page: Path) -> list[Block]:
    """Raises AssertionError for a fence without a known language, and for an output without a block
    that prints it."""
    found: list[Block] = []
    for block, before in _fences(page):
        assert block.language in RUN | PARSED | SHOWN, f"{block.place}: say what language {block.language!r} is"
        if block.language in SHOWN and before == "prints:":
            assert found, f"{block.place}: nothing before it prints this"
            last = found[-1]
            assert last.language in RUN, f"{block.place}: the block before it prints nothing"
            found[-1] = Block(page, last.line, last.language, last.text, block.text)
        else:
            found.append(block)
    return found


def _fences(page: Path) -> Iterator[tuple[Block, str]]:
    """Every fenced block, with the last line of prose before it."""
    before, begun, lines = "", 0, list[str]()
    language = ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("```"):
            if begun:
                lines.append(line)
            elif line.strip():
                before = line.strip()
        elif begun:
            yield Block(page, begun, language, "\n".join(lines) + "\n"), before
            begun, before = 0, ""
        else:
            begun, lines, language = number, [], line.removeprefix("```").strip()
    assert not begun, f"{page}:{begun}: a fence that does not end"


# --- comparing ------------------------------------------------------------------------------------

VARIABLE: Final = [
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{16,}\b"), "ID"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s)\b"), "DURATION"),
    (re.compile(r'(?<=seconds":)[\d.]+'), "NUMBER"),
    (re.compile(r"\b\d{8,}\b"), "NUMBER"),
    (re.compile(r"(?<![:.\d])\d{3,}\b"), "NUMBER"),
    (re.compile(r"broker \d+ coordinates"), "broker N coordinates"),
]
"""Times, ids, checksums and process numbers. A short number after a colon may be a port, and has to
be right."""


def comparable(text: str) -> list[str]:
    """The lines of an output without what differs from run to run. Columns may be wider or
    narrower."""
    for pattern, name in VARIABLE:
        text = pattern.sub(name, text)
    return [" ".join(line.split()) for line in text.strip().splitlines()]


# --- running --------------------------------------------------------------------------------------


class SnippetFailed(AssertionError):
    pass


class Session:
    """One shell and one Python namespace, renewed by ``begin``, and a network of their own that
    lasts until ``close``."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        bin_folder = str(Path(sys.executable).parent)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MINILOG_", "XDG_", "PYTEST_"))}
        path = bin_folder + os.pathsep + os.environ["PATH"]
        self._environment = {
            **kept,
            "HOME": str(self.home),
            "PATH": path,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'clients'}",
        }
        self._child = subprocess.Popen(
            [*_unshare(), sys.executable, "-m", "tests.process.rig.snippet_runner"],
            cwd=self.home,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self) -> None:
        self._ask({"begin": True})

    def sh(self, text: str) -> str:
        """What it prints. Raises SnippetFailed when a command fails or the time is over."""
        return self._ask({"language": "sh", "text": text, "place": "sh"})

    def run(self, block: Block) -> str:
        return self._ask({"language": block.language, "text": block.text, "place": block.place})

    def run_tests(self, blocks: Sequence[Block]) -> None:
        """All in one run of pytest, which says what failed in which of them."""
        names = [f"test_{block.page.stem}_{block.line}.py" for block in blocks]
        for name, block in zip(names, blocks, strict=True):
            (self.home / name).write_text(block.text)
        printed = self.sh(f"python -m pytest -q -p no:cacheprovider -W error {' '.join(names)}")
        assert f"{len(blocks)} passed" in printed, printed

    def _ask(self, question: dict[str, Any]) -> str:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        line, why = "", "the runner ended"
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(question) + "\n")
            self._child.stdin.flush()
            if select.select([self._child.stdout], [], [], BLOCK_TIMEOUT_S)[0]:
                line = self._child.stdout.readline()
            else:
                why = f"it took more than {BLOCK_TIMEOUT_S:.0f} s"
                self._child.kill()  # a late answer would be taken for that of the next question
        if not line:
            raise SnippetFailed(f"{question.get('place')}: {why}: {question.get('text')}")
        answer = json.loads(line)
        printed = str(answer["printed"]).replace(str(self.home), HOME_SHOWN)
        if not answer["fine"]:
            raise SnippetFailed(f"{question['place']} failed:\n{question['text']}\nIt printed:\n{printed}")
        return printed

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        for state in (self.home / STATE, *(path.parent for path in self.home.glob(f"*/{DEV_FILE}"))):
            if (state / DEV_FILE).exists():
                DevCluster.open(state).kill_all()


def _unshare() -> list[str]:
    """The command that gives its child a network of its own. Raises RuntimeError where there can be
    none."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        raise RuntimeError("needs the commands unshare and ip (Debian: apt-get install util-linux iproute2)")
    command = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    probe = subprocess.run([*command, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise RuntimeError(f"no network namespace of one's own here: {probe.stderr.strip()}")
    return [*command, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def check_page(session: Session, page: Path) -> None:
    """Run a page from top to bottom. Raises AssertionError that names the block."""
    session.begin()
    blocks = blocks_of(page)
    if tests := [block for block in blocks if block.is_test]:
        session.run_tests(tests)
    for block in blocks:
        if block.language in PARSED:
            tomllib.loads(block.text)
        elif block.language in RUN and not block.is_test:
            printed = session.run(block)
            if block.printed is not None:
                assert comparable(printed) == comparable(block.printed), (
                    f"{block.place} prints something else:\n{printed}"
                )


def main(pages: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Session(Path(folder))) as session:
        if not {README.name, BACKUPS.name} & {Path(page).name for page in pages}:
            print(session.sh("minilog dev up --detach"))
        for name in pages:
            session.begin()
            for block in blocks_of(Path(name).resolve()):
                if block.language in RUN and not block.is_test:
                    began_s = time.monotonic()
                    print(f"--- {block.place}\n{block.text}--- prints", flush=True)
                    print(session.run(block), end="", flush=True)
                    print(f"--- in {time.monotonic() - began_s:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
