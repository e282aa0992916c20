"""Until when certificates hold: as openssl says it, and whatever the bytes are."""

from __future__ import annotations

import base64
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.core.access.policy import Credential
from minilog.server.security.own_credentials import DAY_MS, SOON_MS, Lasting, conditions, held_by
from minilog.server.security.tls import TlsFiles
from minilog.server.security.validity import Validity, validity_of

NOW_MS = 1_800_000_000_000


def certificate(folder: Path, name: str, days: int, bits: str = "rsa:2048") -> Path:
    path = folder / f"{name}.pem"
    words = f"req -x509 -newkey {bits} -nodes -keyout {name}.key -out {path} -days {days} -subj /CN={name}"
    done = subprocess.run(["openssl", *words.split()], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def told_by_openssl(path: Path) -> Validity:
    words = ["openssl", "x509", "-in", str(path), "-noout", "-dates"]
    printed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    begin, end = (line.partition("=")[2] for line in printed.strip().splitlines())
    return Validity(ssl.cert_time_to_seconds(begin) * 1000, ssl.cert_time_to_seconds(end) * 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.mark.parametrize("days", [1, 365, 9_000, 20_000], ids=lambda days: f"{days} days")
def test_it_is_what_openssl_says(folder: Path, days: int) -> None:
    """Ends before and after 2050, where the form of the time changes."""
    path = certificate(folder, f"days-{days}", days)
    assert validity_of(path.read_text()) == told_by_openssl(path)


def test_a_chain_holds_while_each_of_it_does(folder: Path) -> None:
    long, short = certificate(folder, "long", 100), certificate(folder, "short", 2)
    told = validity_of(long.read_text() + "\nin between\n" + short.read_text())
    assert told is not None
    assert told.ends_ms == told_by_openssl(short).ends_ms
    assert validity_of("no certificate") is None


@given(st.binary(max_size=300))
def test_whatever_the_bytes_are_nothing_fails(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    validity_of(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")


@given(st.data())
def test_a_certificate_with_a_hole_is_a_validity_or_none(data: st.DataObject) -> None:
    der = bytearray(SOME)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, 120))] = data.draw(st.integers(0, 255))
    validity_of(ssl.DER_cert_to_PEM_cert(bytes(der)[: data.draw(st.integers(0, len(der)))]))


SOME = bytes.fromhex(
    "3082017a30820120a003020102021401020304050607080910111213141516171819"
    "20300a06082a8648ce3d040302300d310b300906035504030c026361301e170d3236303130313030303030305a170d33"
    "36303130313030303030305a300d310b300906035504030c02636130"
) + bytes(200)


def test_what_ends_soon_is_told_while_there_is_time() -> None:
    year = Lasting("a.pem", NOW_MS + 13 * DAY_MS, NOW_MS - 352 * DAY_MS)
    day = Lasting("b.pem", NOW_MS + DAY_MS // 2, NOW_MS - DAY_MS // 2)
    found = conditions({"certificate": year, "authority": day}, NOW_MS)
    assert [(one.kind, one.is_warning) for one in found] == [("certificate_ends_soon", True)]
    assert "a.pem ends at 2027-01-28" in found[0].sentence
    assert not day.ends_soon(NOW_MS), "a certificate of a day is not told of every day"
    assert day.ends_soon(NOW_MS + DAY_MS // 2 - DAY_MS // 4)
    assert Lasting("t", NOW_MS + SOON_MS).ends_soon(NOW_MS)
    assert not Lasting("t", NOW_MS + SOON_MS + 1).ends_soon(NOW_MS)


def test_what_has_ended_is_an_error_and_says_what_to_do() -> None:
    found = conditions({"token": Lasting("broker-1.token", NOW_MS)}, NOW_MS)
    assert [(one.kind, one.is_warning) for one in found] == [("token_has_ended", False)]
    assert "others refuse it" in found[0].sentence
    assert "put a new token into the file" in found[0].next_step


def test_what_a_process_shows_is_known_by_its_files(folder: Path) -> None:
    path = certificate(folder, "own", 30)
    held = held_by(TlsFiles(str(path), "", str(path)), "b.token", Credential("broker-1", NOW_MS))
    assert held["certificate"].ends_ms == held["authority"].ends_ms == told_by_openssl(path).ends_ms
    assert held["token"] == Lasting("b.token", NOW_MS)
    assert datetime.fromtimestamp(held["token"].ends_ms / 1000, UTC).year == 2027
    assert held_by(TlsFiles("", "", ""), "b.token", Credential("broker-1", None)) == {}
