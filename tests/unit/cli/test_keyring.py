"""Keys of a secured dev cluster."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

import pytest

from minilog.cli import access
from minilog.cli.local.cluster import DevCluster
from minilog.cli.local.keyring import Keyring, export_line
from minilog.cli.output import CliError
from minilog.core.access.principal import Role
from minilog.security_file import read_security

PROCESSES = {"controller": "controller", "broker-1": "peer:1"}


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    made = Keyring(tmp_path_factory.mktemp("dev") / "keys")
    made.make(PROCESSES)
    return made


def test_nobody_else_may_read_anything(keyring: Keyring) -> None:
    assert stat.S_IMODE(keyring.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in keyring.folder.iterdir()} == {0o600}


def test_each_process_and_the_administrator_are_known_without_a_warning(keyring: Keyring) -> None:
    read = read_security(keyring.security_file)
    assert not read.warnings
    roles = {name: principal.roles for name, principal in read.policy.principals.items()}
    assert roles == {
        "controller": {Role.CONTROLLER},
        "broker-1": {Role.PEER},
        "admin": {Role.ADMIN},
        "metrics": {Role.METRICS},
    }
    assert keyring.credential.headers("https://127.0.0.1:1")["Authorization"].startswith("Bearer mlt_")


def test_what_is_there_is_kept(keyring: Keyring) -> None:
    before = {path.name: path.read_bytes() for path in keyring.folder.iterdir()}
    keyring.make(PROCESSES)
    assert {path.name: path.read_bytes() for path in keyring.folder.iterdir()} == before
    keyring.make({**PROCESSES, "broker-2": "peer:2"})
    after = {path.name: path.read_bytes() for path in keyring.folder.iterdir()}
    assert set(after) - set(before) == {"broker-2.pem", "broker-2.key", "broker-2.token"}
    assert after["broker-1.pem"] == before["broker-1.pem"]


def test_a_certificate_that_ends_soon_is_made_anew(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (keyring.folder / "broker-1.pem").read_bytes()
    monkeypatch.setattr("minilog.cli.local.keyring.RENEW_S", 400 * 24 * 3600)
    keyring.make(PROCESSES)
    assert (keyring.folder / "broker-1.pem").read_bytes() != before
    context = ssl.create_default_context(cafile=keyring.ca_file)
    context.load_cert_chain(keyring.folder / "broker-1.pem", keyring.folder / "broker-1.key")


def test_a_token_that_was_lost_is_made_anew_and_the_principal_keeps_its_rules(keyring: Keyring) -> None:
    lost = keyring.make_principal("shop", allow=["write orders.*"])
    first = lost.read_text()
    lost.unlink()
    assert keyring.make_principal("shop").read_text() != first
    policy = read_security(keyring.security_file).policy
    assert [str(rule) for rule in policy.principals["shop"].rules] == ["write orders.*"]


def test_where_openssl_is_missing_a_sentence_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CliError, match="openssl, which is not installed here"):
        Keyring(tmp_path / "keys").make(PROCESSES)


def test_a_cluster_remembers_that_it_is_secured(tmp_path: Path) -> None:
    folder = tmp_path / "my cluster"
    assert DevCluster.create(folder, 1).keyring is None
    made = DevCluster.create(folder, 1, secure=True)
    made.save()
    again = DevCluster.create(folder, 1)
    assert again.keyring is not None
    assert again.brokers[0].url == again.url == "https://127.0.0.1:8082"
    assert export_line(again.environment) == (
        f"export MINILOG_URL={again.url} MINILOG_TOKEN_FILE='{folder}/keys/admin.token' MINILOG_CA_FILE='{folder}/keys/ca.pem'"
    )
    assert DevCluster.create(folder, 1, secure=False).keyring is None


def test_named_keys_win_over_those_of_the_dev_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {access.CA_FILE: "mine.pem"})
    access.use_by_default({access.TOKEN_FILE: "theirs"})
    assert access.TOKEN_FILE not in os.environ
    monkeypatch.setattr(os, "environ", dict[str, str]())
    access.use_by_default({access.TOKEN_FILE: "theirs"})
    assert os.environ[access.TOKEN_FILE] == "theirs"
