"""Settings that cannot work together, addresses nobody can reach, and an environment full of what
others mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilog.cli.api import resolve_url
from minilog.cli.main import run
from minilog.cli.output import CliError
from minilog.cli.settings.config import check
from minilog.errors import InvalidRequest
from minilog.settings import BadSettings, load_broker, load_controller, service_links
from minilog_client.connection.http_messages import broker_urls

BROKER = ("broker_id=1", "data_dir=d")
THERE = "controller_url=http://10.0.0.9:9093"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["heartbeat_interval_ms=900", "session_timeout_ms=1000"],
            "heartbeat_interval_ms = 900 (--set heartbeat_interval_ms)",
        ),
        (
            ["replica_fetch_wait_ms=5000"],
            "replica_fetch_wait_ms = 5000 (--set replica_fetch_wait_ms) must be at most half of peer",
        ),
        (["replica_fetch_wait_ms=1000", "replica_lag_max_ms=1500"], "at most half of replica_lag_max_ms = 1500"),
        (["peer_timeout_ms=100"], "at most half of peer_timeout_ms = 100 (--set peer_timeout_ms)"),
        (["drain_timeout_ms=20000"], "must not be larger than shutdown_timeout_ms = 10000 (default)"),
        (["group_session_timeout_ms_min=9000000"], "must not be larger than group_session_timeout_ms_max"),
        (
            ["limits.fetch_bytes_max=16777216", "limits.inflight_bytes_max=16777215"],
            "larger than limits.inflight_bytes_max",
        ),
        (["data_dir=~/minilog"], "~ and $NAME are not expanded here; write the path in full"),
        (["data_dir=/srv/~/minilog"], "~ and $NAME"),
        (["data_dir=$HOME/minilog"], "~ and $NAME"),
        (["data_dir=${HOME}"], "~ and $NAME"),
        (["data_dir=a\0b"], "no file name holds a NUL"),
        (["advertised_url=http://$HOSTNAME:8082"], "$NAME is not expanded here"),
        (["advertised_url=http://0.0.0.0:8082", "host=0.0.0.0"], "no single machine's address"),
        (["advertised_url=http://[::]:8082"], "no single machine's address"),
        (["advertised_url=http://224.0.0.1:8082"], "no single machine's address"),
        (["advertised_url=http://255.255.255.255:8082"], "no single machine's address"),
        (["controller_url=http://0.0.0.0:9093"], "no single machine's address"),
        (["port=9093"], "cannot share port 9093"),
        (["host=localhost", "port=9093"], "cannot share port 9093"),
        (["advertised_url=http://[::1]:9093"], "cannot share port 9093"),
        (["controller_url=http://c:80", "advertised_url=http://c"], "cannot share port 80"),
        ([THERE], "host = '127.0.0.1' (default) is this machine's own address, which the controller of controller_url"),
        ([THERE, "host=0.0.0.0", "advertised_url=http://localhost:8082"], "advertised_url = 'http://localhost:8082'"),
    ],
)
def test_what_cannot_work_for_a_broker_is_refused_with_both_sources(flags: list[str], said: str) -> None:
    names = {flag.partition("=")[0] for flag in flags}
    with pytest.raises(BadSettings) as refused:
        load_broker(None, {}, [*(flag for flag in BROKER if flag.partition("=")[0] not in names), *flags])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "flags",
    [
        [THERE, "host=10.0.0.1"],
        [THERE, "host=0.0.0.0", "advertised_url=http://broker-1:8082"],
        [THERE, "advertised_url=http://broker-1:8082"],  # what listens at that address may pass it on
        ["controller_url=http://localhost:9093"],
        ["port=0", "controller_url=http://127.0.0.1:1"],
        ["data_dir=/srv/backup~/PROGRA~1"],
        ["data_dir=/srv/5$"],
    ],
)
def test_what_can_work_is_taken(flags: list[str]) -> None:
    load_broker(None, {}, ["broker_id=1", *([] if flags[0].startswith("data_dir") else ["data_dir=d"]), *flags])


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (
            "probe_after_ms=1800",
            "heartbeat_interval_ms = 200 (default) and probe_after_ms = 1800 (--set probe_after_ms)",
        ),
        ("topic_create_wait_ms=9000", "must be at most 5000"),
        ("default_partitions=200000", "must not be larger than partitions_max = 100000"),
        ("heartbeat_interval_ms=1001", "at most half of session_timeout_ms"),
        ("data_dir=~", "~ and $NAME"),
    ],
)
def test_what_cannot_work_for_a_controller_is_refused(flag: str, said: str) -> None:
    with pytest.raises(BadSettings) as refused:
        load_controller(None, {}, [*([] if flag.startswith("data_dir") else ["data_dir=d"]), flag])
    assert said in str(refused.value)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_bytes(b'\xef\xbb\xbfbroker_id = 1\ndata_dir = "x"\n')
    assert load_broker(file).settings.broker_id == 1


def of_service(name: str) -> dict[str, str]:
    """What Kubernetes tells of a service with a named and an unnamed port."""
    at = f"{name}_PORT_8082_TCP"
    return {
        f"{name}_SERVICE_HOST": "10.0.0.1",
        f"{name}_SERVICE_PORT": "8082",
        f"{name}_SERVICE_PORT_HTTP": "8082",
        f"{name}_PORT": "tcp://10.0.0.1:8082",
        at: "tcp://10.0.0.1:8082",
        f"{at}_PROTO": "tcp",
        f"{at}_PORT": "8082",
        f"{at}_ADDR": "10.0.0.1",
        f"{name}_PORT_53_UDP": "udp://10.0.0.1:53",
    }


@pytest.mark.parametrize(
    "name", ["MINILOG", "MINILOG_BROKER", "MINILOG_CONTROLLER", "MINILOG_BROKER_0", "MINILOG_EU_WEST"]
)
def test_what_kubernetes_tells_of_services_is_no_setting(name: str) -> None:
    links = of_service(name)
    environment = {**links, "MINILOG_RACK": "r", "HOME": "/x"}
    settings = load_broker(None, environment, BROKER).settings
    assert (settings.port, settings.host, settings.rack) == (8082, "127.0.0.1", "r")
    load_controller(None, environment, ["data_dir=d"])
    assert service_links(environment) == sorted(links)


def test_settings_of_like_names_are_settings() -> None:
    environment = {
        "MINILOG_PORT": "99",
        "MINILOG_CONTROLLER_URL": "http://127.0.0.1:1",
        "MINILOG_CONTROLLER__PORT": "5",
    }
    assert not service_links(environment)
    assert load_broker(None, environment, BROKER).settings.port == 99
    assert load_controller(None, environment, ["data_dir=d"]).settings.port == 5
    with pytest.raises(BadSettings, match="unknown key 'service_prot'"):
        load_broker(None, {"MINILOG_SERVICE_PROT": "1"}, BROKER)


def test_who_runs_it_is_told_what_was_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in of_service("MINILOG").items():
        monkeypatch.setenv(name, value)
    assert run(["config", "show"]) == 0
    told = capsys.readouterr().err
    assert "MINILOG_PORT, MINILOG_PORT_53_UDP, MINILOG_PORT_8082_TCP and 6 more" in told
    assert "enableServiceLinks" in told


SECRET = "mlt_" + "w" * 43


@pytest.mark.parametrize("url", [f"http://x:{SECRET}@a:1", f"http://a:1/?token={SECRET}", f"http://a:1/{SECRET}"])
def test_a_url_with_a_token_in_it_is_refused_and_the_token_is_not_said(url: str) -> None:
    with pytest.raises(BadSettings) as refused:
        load_broker(None, {}, ["broker_id=1", "data_dir=d", f"advertised_url={url}"])
    assert "w" * 8 not in str(refused.value)
    with pytest.raises(CliError) as shown:
        resolve_url(url.replace(f"/{SECRET}", f"?x={SECRET}"))
    assert "w" * 8 not in shown.value.sentence
    with pytest.raises(InvalidRequest) as told:
        broker_urls(url)
    assert "w" * 8 not in told.value.detail


def test_no_token_is_shown_to_a_controller_in_plain_sight() -> None:
    there = [*BROKER, "token_file=t", "advertised_url=http://10.0.0.2:1", "controller_url=http://10.0.0.9:9093"]
    with pytest.raises(BadSettings, match=r"http://10\.0\.0\.9:9093, without TLS"):
        load_broker(None, {}, there)
    assert load_broker(None, {}, [*there, "tokens_without_tls=always"])
    assert load_broker(None, {}, [*BROKER, "token_file=t", "controller_url=http://127.0.0.1:9093"])


def test_config_check_reads_what_the_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, security = tmp_path / "controller.toml", tmp_path / "security.toml"
    file.write_text(f'data_dir = "d"\nsecurity_file = "{security}"\n')
    security.write_text('[principals.shop]\nallow = ["read orders events", "read orders.*", "read orders.eu"]\n')
    security.chmod(0o644)
    with pytest.raises(BadSettings, match="chmod 600"):
        check(file, "controller")
    security.chmod(0o600)
    check(file, "controller")
    told = capsys.readouterr().err
    assert "rule 'read orders events' can never match" in told
    assert "rule 'read orders.eu' adds nothing" in told
    assert "nobody is controller" in told
