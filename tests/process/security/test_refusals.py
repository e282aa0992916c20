"""What is refused, kind by kind: why, whether it is counted, and that no token is written down."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from minilog.cli.local.ports import free_ports
from tests.process.security.secured import Secured, secured, until

WRONG = "mlt_" + "w" * 43


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(
        tmp_path_factory.mktemp("refusals"), "failed_logins_per_minute_max=20", "tokens_without_tls=never"
    ) as made:
        yield made
        for name in made.members:
            assert "mlt_" not in made.log(name), "no token is written down, not even a wrong one"
            assert "Traceback" not in made.log(name)


def counted(cluster: Secured, process: str = "broker-1") -> dict[str, float]:
    status, body = cluster.ask(cluster.url(process) + "/metrics", cluster.token_of("ann"))
    assert status == 200
    found = re.findall(r'^minilog_access_refused_total\{reason="(\w+)"\} (\S+)$', body.decode(), re.MULTILINE)
    return {reason: float(count) for reason, count in found}


def metric(cluster: Secured, process: str, name: str) -> float:
    body = cluster.ask(cluster.url(process) + "/metrics", cluster.token_of("ann"))[1].decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", body, re.MULTILINE)
    assert found, name
    return float(found[1])


BASIC = "Basic " + base64.b64encode(f"x:{WRONG}".encode()).decode()
KINDS: dict[str, tuple[str, dict[str, str], str, int]] = {
    "nobody": ("/v1/topics", {}, "no_credential", 401),
    "a token of nobody": ("/v1/topics", {"Authorization": f"Bearer {WRONG}"}, "unknown_credential", 401),
    "the same as a password": ("/v1/topics", {"Authorization": BASIC}, "unknown_credential", 401),
    "another scheme": ("/v1/topics", {"Authorization": f"Digest {WRONG}"}, "malformed_credential", 401),
    "no token at all": ("/v1/topics", {"Authorization": "Bearer a b"}, "malformed_credential", 401),
    "broken base64": ("/v1/topics", {"Authorization": "Basic %%%"}, "malformed_credential", 401),
    "a foreign name": ("/v1/topics", {"Host": "evil.example"}, "foreign_name", 403),
    "a foreign page": ("/v1/topics", {"Origin": "http://evil.example"}, "foreign_origin", 403),
    "a token in the query": (f"/v1/topics?token={WRONG}", {}, "token_in_url", 400),
    "a token under another name": (f"/v1/topics?x={WRONG}", {}, "token_in_url", 400),
    "a token in the path": (f"/v1/topics/{WRONG}", {}, "token_in_url", 400),
    "an access token of others": ("/v1/topics?access_token=eyJhbGciOi", {}, "token_in_url", 400),
}


@pytest.mark.parametrize("process", ["broker-1", "controller"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_says_why_and_is_counted(cluster: Secured, kind: str, process: str) -> None:
    path, headers, reason, wanted = KINDS[kind]
    if process == "controller":
        path = path.replace("/v1/topics", "/v1/cluster")
    before = counted(cluster, process)[reason]
    status, body = cluster.ask(cluster.url(process) + path, headers=headers)
    told = json.loads(body)
    assert (status, told["reason"]) == (wanted, reason)
    assert WRONG not in body.decode()
    assert counted(cluster, process)[reason] == before + 1


def test_what_a_rule_does_not_allow_is_counted(cluster: Secured) -> None:
    before = counted(cluster)["not_allowed"]
    status, body = cluster.ask(cluster.url() + "/v1/topics/other", cluster.token_of("shop"), method="DELETE")
    assert (status, json.loads(body)["code"]) == (403, "FORBIDDEN")
    assert counted(cluster)["not_allowed"] == before + 1


def test_an_expired_token_says_so_and_whose_it_is(cluster: Secured) -> None:
    token = cluster.token("late", "--allow", "describe", "--days", "1").strip()
    file = cluster.folder / "security.toml"
    whole = file.read_text()
    file.write_text(re.sub(r"not_after = \S+(?= \})", "not_after = 2020-01-01T00:00:00Z", whole))
    until(lambda: b"has expired" in cluster.ask(cluster.url() + "/v1/topics", token)[1], "the token to expire")
    assert counted(cluster)["expired"] >= 1
    file.write_text(whole)


def test_too_many_failed_logins_of_an_address_are_answered_429_and_nobody_is_locked_out(cluster: Secured) -> None:
    url = cluster.url("broker-2") + "/v1/topics"
    answers = [cluster.ask(url, WRONG) for _ in range(30)]
    told_why = [status for status, _ in answers].count(401)
    assert [status for status, _ in answers] == [401] * told_why + [429] * (30 - told_why)
    assert 0 < told_why <= 20, "tokens that broker did not know yet have failed in that minute as well"
    told = json.loads(answers[-1][1])
    assert told["reason"] == "failed_logins"
    assert 0 < told["retry_after_ms"] <= 60_000
    assert cluster.ask(url, cluster.token_of("ann"))[0] == 200, "who is somebody is let in at any time"
    assert cluster.ask(url)[0] == 401, "who shows nothing has not failed to log in"
    assert counted(cluster, "broker-2")["failed_logins"] == 30 - told_why


def test_a_file_that_cannot_be_used_is_a_metric_until_it_can(cluster: Secured) -> None:
    file = cluster.folder / "security.toml"
    whole = file.read_text()
    file.write_text("this is no security file")
    until(lambda: metric(cluster, "controller", "minilog_security_files_broken") == 1, "the file to be told of")
    assert metric(cluster, "controller", "minilog_security_file_errors_total") >= 1
    file.write_text(whole)
    until(lambda: metric(cluster, "controller", "minilog_security_files_broken") == 0, "the file to be in force")


def test_a_new_certificate_is_seen_and_how_long_it_holds_is_a_metric(cluster: Secured) -> None:
    left = 'minilog_credential_seconds_left{kind="certificate"}'
    assert 300 * 86_400 < metric(cluster, "broker-2", left) <= 366 * 86_400
    pem = cluster.folder / "broker-2.pem"
    whole = pem.read_bytes()
    ending(cluster.folder)
    until(lambda: metric(cluster, "broker-2", left) < 2 * 86_400, "the new certificate to be seen")
    assert metric(cluster, "broker-2", 'minilog_credential_lifetime_seconds{kind="certificate"}') == 86_400
    pem.write_bytes(whole)
    until(lambda: metric(cluster, "broker-2", left) > 300 * 86_400, "the old one to be back")


def test_a_credential_that_ends_soon_is_a_finding_of_health_and_an_event(cluster: Secured) -> None:
    file = cluster.folder / "security.toml"
    whole = file.read_text()
    ends = datetime.now(UTC) + timedelta(days=3)
    head, _, tail = whole.partition('[principals."broker-2"]')
    file.write_text(
        f'{head}[principals."broker-2"]{tail.replace(" }", f", not_after = {ends:%Y-%m-%dT%H:%M:%SZ} }}", 1)}'
    )
    health = cluster.url() + "/v1/cluster/health"
    until(lambda: b"token_ends_soon" in cluster.ask(health, cluster.token_of("ann"))[1], "health to speak of it")
    assert cluster.command("ann", "cluster", "health").returncode == 0, "a warning is no illness"
    events = cluster.command("ann", "cluster", "events").stdout
    assert "broker 2: its token in" in events
    assert "WARNING minilog.security: its token in" in cluster.log("broker-2")
    file.write_text(whole)
    until(lambda: b"token_ends_soon" not in cluster.ask(health, cluster.token_of("ann"))[1], "it to be over")


def ending(folder: Path) -> None:
    """A certificate of broker 2 that holds for a day."""
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,URI:minilog://broker-2\n")
    for words in (
        "req -new -key broker-2.key -subj /CN=broker-2 -out broker-2.csr",
        "x509 -req -in broker-2.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile names -out broker-2.new",
    ):
        done = subprocess.run(["openssl", *words.split()], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (folder / "broker-2.new").rename(folder / "broker-2.pem")


# --- without TLS ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "wanted"), [("never", 403), ("loopback", 200), ("always", 200)])
def test_a_token_over_plain_http_is_taken_as_the_setting_says(tmp_path: Path, allowed: str, wanted: int) -> None:
    """On loopback. What other machines could see is refused when the process starts."""
    token, port = made_by(tmp_path), free_ports(1)[0]
    with running(tmp_path, port, f"tokens_without_tls={allowed}"):
        url = f"http://127.0.0.1:{port}/v1/cluster"
        until(lambda: answered(url.replace("/v1/cluster", "/healthz"), "")[0] == 200, "the controller to listen")
        status, body = answered(url, token)
        assert status == wanted, body
        if status == 403:
            assert json.loads(body)["reason"] == "without_tls"
            assert token not in body.decode()


def test_a_listener_that_others_reach_without_tls_does_not_start(tmp_path: Path) -> None:
    made_by(tmp_path)
    settings = [*common(tmp_path, free_ports(1)[0]), "--set", "host=0.0.0.0", "--set", "advertised_url=http://x:1"]
    done = subprocess.run(
        [sys.executable, "-m", "minilog", "controller", "run", *settings],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "which other machines reach, without TLS" in done.stderr
    assert 'tokens_without_tls = "always"' in done.stderr


def made_by(folder: Path) -> str:
    """A security file with one principal, whose token it is."""
    words = ["token", "create", "ann", "--role", "admin", "--file", str(folder / "security.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "minilog", *words], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def common(folder: Path, port: int) -> list[str]:
    pairs = [f"data_dir={folder / 'data'}", f"port={port}", f"security_file={folder / 'security.toml'}"]
    return [part for pair in pairs for part in ("--set", pair)]


def running(folder: Path, port: int, setting: str) -> Running:
    return Running([*common(folder, port), "--set", setting])


class Running:
    def __init__(self, settings: list[str]) -> None:
        command = [sys.executable, "-m", "minilog", "controller", "run", *settings]
        self._child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._child.terminate()
        self._child.wait(20)


def answered(url: str, token: str) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
    except OSError:
        return 0, b""
