"""The files of security while the process runs: what is withdrawn is withdrawn, whatever the file
was like in between."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minilog.config import BrokerSettings
from minilog.core.access.policy import Shown
from minilog.errors import Unauthenticated
from minilog.server import process
from minilog.server.security.gate import BEATS_TO_RETRY, Gate
from minilog.settings_checks import BadSettings

TOKEN = "mlt_abcdefghijklmnopqrstuvwxyz"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
LET_IN = f'[principals.ann]\nroles = ["admin"]\ntokens = [{{ sha256 = "{DIGEST}" }}]\n'
NOBODY = "[principals.bob]\nroles = ['admin']\n"
UNREADABLE = "/proc/self/mem"
"""A plain file of this user's own, of which reading fails."""
MANY_DIGITS = f"[principals.ann]\nrequests_per_second = {'1' * 5000}\n"
MANY_DIGITS_TO_SHOW = f"[principals.ann]\nrequests_per_second = 0x{'f' * 5000}\n"


class Watched:
    """A gate and its file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "security.toml"
        self.write(LET_IN)
        self.settings = BrokerSettings(broker_id=1, data_dir="", security_file=str(self.path))
        self.gate = Gate(self.settings)

    def write(self, text: str) -> None:
        """As editors do: another file takes the place."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)
        new.rename(self.path)

    def replace_by_unreadable(self) -> None:
        self.path.unlink()
        self.path.symlink_to(UNREADABLE)

    @property
    def lets_in(self) -> bool:
        try:
            return self.gate.policy.known_by(Shown(TOKEN), 0) is not None
        except Unauthenticated:
            return False


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_what_is_withdrawn_is_let_in_no_more(watched: Watched) -> None:
    assert watched.lets_in
    watched.write(NOBODY)
    watched.gate.beat()
    assert not watched.lets_in


@pytest.mark.parametrize("text", [MANY_DIGITS, MANY_DIGITS_TO_SHOW, "[principals.ann\n"], ids=["long", "hex", "half"])
def test_a_file_that_says_what_cannot_be_keeps_the_last_good_one_in_force(watched: Watched, text: str) -> None:
    watched.write(text)
    watched.gate.beat()
    assert watched.lets_in
    assert watched.gate.file_errors == 1
    watched.write(NOBODY)
    watched.gate.beat()
    assert not watched.lets_in


def test_a_file_that_cannot_be_read_keeps_the_last_good_one_in_force(watched: Watched) -> None:
    watched.replace_by_unreadable()
    watched.gate.beat()
    assert watched.lets_in
    assert watched.gate.file_errors == 1


def test_a_start_with_a_file_that_cannot_be_read_says_so(watched: Watched) -> None:
    watched.replace_by_unreadable()
    with pytest.raises(BadSettings, match="cannot be read: Input/output error"):
        Gate(watched.settings)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Whoever holds all descriptors may be the one whose credential is withdrawn."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_could_not_be_read_is_read_later_although_the_file_is_the_same(watched: Watched) -> None:
    watched.write(NOBODY)
    with no_more_files():
        watched.gate.beat()
    assert watched.lets_in
    for _ in range(BEATS_TO_RETRY):
        watched.gate.beat()
    assert not watched.lets_in


class Faulty(Gate):
    looks = 0

    def beat(self, *, is_asked: bool = False) -> None:
        self.looks += 1
        if self.looks < 3:
            ask()
        raise RuntimeError("what nobody has thought of")


def ask() -> None:
    for look in list(process.on_hangup):
        look()


def test_a_look_that_fails_in_a_way_of_its_own_is_not_the_last_one(watched: Watched) -> None:
    """A watcher that has ended withdraws nothing any more, and nobody would know."""

    async def watch() -> None:
        gate = Faulty(watched.settings)
        watching = asyncio.create_task(gate.watch())
        await asyncio.sleep(0)
        ask()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not watching.done()
        assert (gate.looks, gate.file_errors) == (3, 3)
        watching.cancel()

    asyncio.run(watch())
