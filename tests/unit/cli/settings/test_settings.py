from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from minilog.config import MESSAGE_BYTES_MAX, REPLICA_FETCH_BYTES_MAX, BrokerSettings, ControllerSettings
from minilog.server.outbound.peer_lane import Address
from minilog.server.outbound.peers import ANSWER_BYTES_MAX
from minilog.settings import (
    BadSettings,
    Given,
    Role,
    assign,
    load_both,
    load_broker,
    load_controller,
    role_of,
    variable,
)

MINIMAL = ["broker_id=1", "data_dir=d"]
CONFIG = Path(__file__).parents[4] / "config"


def write(folder: Path, text: str) -> Path:
    path = folder / "broker.toml"
    path.write_text(text)
    return path


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = write(tmp_path, "broker_id = 7\ndata_dir = 'd'\nport = 1000\nrack = 'r'\n[limits]\nconnections_max = 5\n")
    environment = {"MINILOG_PORT": "2000", "MINILOG_LIMITS__CONNECTIONS_MAX": "6", "HOME": "/x"}
    loaded = load_broker(file, environment, ["port=3000"])
    assert (loaded.settings.port, loaded.settings.limits.connections_max, loaded.settings.rack) == (3000, 6, "r")
    assert loaded.origins["port"] == "--set port"
    assert loaded.origins["limits.connections_max"] == "environment variable MINILOG_LIMITS__CONNECTIONS_MAX"
    assert loaded.origins["rack"] == str(file)
    assert loaded.origins["host"] == "default"


def test_defaults_of_the_caller_are_weakest(tmp_path: Path) -> None:
    file = write(tmp_path, "port = 1000\n")
    loaded = load_broker(file, {}, [], {"broker_id": "1", "data_dir": "d", "port": "5", "rack": "z"})
    assert (loaded.settings.port, loaded.settings.rack) == (1000, "z")


def test_a_prefix_names_the_process_and_wins_over_the_bare_key(tmp_path: Path) -> None:
    file = write(
        tmp_path, "host = 'h'\n[broker]\nbroker_id = 1\ndata_dir = 'b'\nhost = 'i'\n[controller]\ndata_dir = 'c'\n"
    )
    assert load_broker(file).settings.host == "i"
    controller = load_controller(file).settings
    assert (controller.host, controller.data_dir) == ("h", "c")


def test_what_only_the_other_process_knows_is_ignored_in_a_shared_source() -> None:
    environment = {"MINILOG_ELECTION_TIMEOUT_MS": "100"}
    assert load_broker(None, environment, MINIMAL).settings.port == 8082
    assert load_controller(None, environment, ["data_dir=d"]).settings.election_timeout_ms == 100


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["broker_id=1"], "the broker needs data_dir"),
        ([*MINIMAL, "prot=1"], "unknown key 'prot'; did you mean port?"),
        ([*MINIMAL, "port=abc"], "port = 'abc' is not allowed; it must be a whole number from 0 to 65535"),
        ([*MINIMAL, "port=70000"], "from 0 to 65535"),
        ([*MINIMAL, "self_fencing=perhaps"], "true or false"),
        ([*MINIMAL, "port=1", "port=2"], "given twice"),
        ([*MINIMAL, "port"], "write key=value"),
        ([*MINIMAL, "heartbeat_interval_ms=1500"], "at most half of session_timeout_ms"),
        ([*MINIMAL, "limits.batch_bytes_max=17000000"], "must not be larger than limits.request_bytes_max"),
        ([*MINIMAL, "controller_url=localhost:9093"], "must look like http://host:port"),
        ([*MINIMAL, "controller_url=http://u:p@h:1"], "must look like http://host:port"),
        ([*MINIMAL, "controller_url=http://h:99999"], "port outside"),
        ([*MINIMAL, "host=0.0.0.0"], "advertised_url must say"),
        (["broker_id=1", "data_dir="], "data_dir is empty"),
        ([*MINIMAL, "limits.nothing=1"], "unknown key 'limits.nothing'"),
        ([*MINIMAL, "controller.nothing=1"], "unknown key 'controller.nothing'"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence(flags: list[str], said: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load_broker(None, {}, flags)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"port = ", "is not valid TOML"),
        (b"port = 1\nport = 2", "is not valid TOML"),
        (b"port = " + b"1" * 5000, "is not valid TOML"),
        (b"port = '8082'", "port = '8082' is not allowed"),
        (b"rack = 3", "it must be a text"),
        (b"host = '\xff'", "is not UTF-8"),
        (b"limits = 3", "unknown key 'limits'"),
    ],
)
def test_a_bad_file_is_refused_and_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "broker.toml"
    file.write_bytes(content)
    with pytest.raises(BadSettings) as caught:
        load_broker(file, {}, MINIMAL)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="does not exist"):
        load_broker(tmp_path / "no.toml")


def test_an_unknown_variable_is_refused_but_not_our_own_others() -> None:
    load_broker(None, {"MINILOG_URL": "http://x", "MINILOG_DEBUG": "1"}, MINIMAL)
    with pytest.raises(BadSettings, match="MINILOG_PROT"):
        load_broker(None, {"MINILOG_PROT": "1"}, MINIMAL)


def test_flags_of_a_whole_cluster_are_dealt_out() -> None:
    dealt = assign(["election_timeout_ms=100", "replica_lag_max_ms=9", "session_timeout_ms=900", "broker.rack=r"])
    assert dealt["controller"] == ["election_timeout_ms=100", "session_timeout_ms=900"]
    assert dealt["broker"] == ["replica_lag_max_ms=9", "session_timeout_ms=900", "rack=r"]
    assert assign(["controller.limits.connections_max=3"])["controller"] == ["limits.connections_max=3"]


def test_the_patience_with_peers_is_set_for_both_roles_at_once() -> None:
    assert assign(["peer_timeout_ms=500"]) == {"broker": ["peer_timeout_ms=500"], "controller": ["peer_timeout_ms=500"]}


def test_a_process_that_is_both_has_one_event_loop() -> None:
    assert assign(["event_loop=asyncio"]) == {"broker": ["event_loop=asyncio"], "controller": ["event_loop=asyncio"]}
    flags: dict[Role, dict[str, Given]] = {
        "controller": {},
        "broker": {"event_loop": Given("asyncio", "--set broker.event_loop", text=True)},
    }
    with pytest.raises(
        BadSettings, match=r"broker.event_loop = 'asyncio' \(--set broker.event_loop\) .* set event_loop alone"
    ):
        load_both(None, {}, flags, {"data_dir": "d", "broker_id": "1"})


def test_no_follower_is_made_to_ask_for_more_than_it_would_take() -> None:
    assert REPLICA_FETCH_BYTES_MAX + MESSAGE_BYTES_MAX < ANSWER_BYTES_MAX
    for size in (REPLICA_FETCH_BYTES_MAX, 1):
        assert load_broker(None, {}, [*MINIMAL, f"replica_fetch_bytes_max={size}"])
    with pytest.raises(BadSettings, match=f"from 1 to {REPLICA_FETCH_BYTES_MAX}"):
        load_broker(None, {}, [*MINIMAL, f"replica_fetch_bytes_max={REPLICA_FETCH_BYTES_MAX + 1}"])


@pytest.mark.parametrize("pair", ["port=1", "nothing=1", "broker.nothing=1", "election_timeout_ms=x"])
def test_flags_of_a_whole_cluster_are_checked(pair: str) -> None:
    with pytest.raises(BadSettings):
        assign([pair])


def test_the_examples_name_every_setting_with_its_default() -> None:
    broker = tomllib.loads((CONFIG / "broker.toml").read_text())
    controller = tomllib.loads((CONFIG / "controller.toml").read_text())
    assert broker == msgspec.to_builtins(BrokerSettings(broker_id=1, data_dir="data/broker-1"))
    assert controller == msgspec.to_builtins(ControllerSettings(data_dir="data/controller"))
    assert role_of(CONFIG / "broker.toml") == "broker"
    assert role_of(CONFIG / "controller.toml") == "controller"
    load_broker(CONFIG / "broker.toml")
    load_controller(CONFIG / "controller.toml")


def test_the_variable_of_a_key() -> None:
    assert variable("limits.connections_max") == "MINILOG_LIMITS__CONNECTIONS_MAX"


@pytest.mark.parametrize(
    ("flag", "written"),
    [
        ("advertised_url=http://bücher.example:8082", "http://xn--bcher-kva.example:8082"),
        ("advertised_url=http://Straße.example", "http://xn--strae-oqa.example"),
        ("advertised_url=http://b。example:1/", "http://b.example:1/"),
        ("advertised_url=http://Broker_1.example.:8082", "http://Broker_1.example.:8082"),
        ("advertised_url=http://[2001:db8::1]:8082", "http://[2001:db8::1]:8082"),
    ],
)
def test_host_names_are_written_as_resolvers_and_http_know_them(flag: str, written: str) -> None:
    assert load_broker(None, {}, [*MINIMAL, flag]).settings.advertised_url == written


def test_every_setting_that_names_a_host_is_written_so() -> None:
    settings = load_broker(
        None, {}, [*MINIMAL, "controller_url=http://bücher.example:1", "host=bücher.example"]
    ).settings
    assert settings.controller_url == "http://xn--bcher-kva.example:1"
    assert settings.host == "xn--bcher-kva.example"
    assert load_controller(None, {}, ["data_dir=d", "host=bücher.example"]).settings.host == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://a..b:80", "its part '' is no name"),
        (f"http://{'a' * 64}.example:80", "1 to 63 letters, digits, - and _"),
        (f"http://{'.'.join(['a' * 60] * 5)}:80", "304 characters long, at most 253"),
        ("http://☃.example:80", "cannot be written as an international domain name"),
        ("http://a$b:80", "its part 'a$b' is no name"),
        ("http://-a:80", "its part '-a' is no name"),
        ("http://[zz]:80", "is not allowed"),
        ("http://a\u2100b:80", "it must look like http://host:port"),
    ],
)
def test_a_host_that_no_resolver_could_know_is_refused_with_its_reason(url: str, said: str) -> None:
    for key in ("controller_url", "advertised_url"):
        with pytest.raises(BadSettings) as refused:
            load_broker(None, {}, [*MINIMAL, f"{key}={url}"])
        assert said in str(refused.value)
        assert f"--set {key}" in str(refused.value)
    if "[" not in url and "\u2100" not in url:
        with pytest.raises(BadSettings) as refused:
            load_controller(None, {}, ["data_dir=d", f"host={url[7:-3]}"])
        assert said in str(refused.value)


@pytest.mark.parametrize("key", ["controller_url", "advertised_url"])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:0", "port 0"),
        ("http://127.0.0.1:9093#x", "must look like"),
        ("http://127.0.0.1:9093/", ""),
        ("http://[::1%eth0]:9093", ""),
        ("http://1.2.3:80", ""),
        ("http://host:", ""),
    ],
)
def test_an_accepted_url_is_one_that_others_can_connect_to(key: str, url: str, words: str) -> None:
    flags = [*MINIMAL, "port=1", "controller_url=http://other:1", "advertised_url=http://me:1"]
    flags = [*(flag for flag in flags if not flag.startswith(key)), f"{key}={url}"]
    if key == "advertised_url":
        flags = [flag.replace("other:1", "127.0.0.1:1") for flag in flags]
    if words:
        with pytest.raises(BadSettings, match=words):
            load_broker(None, {}, flags)
    else:
        Address.of(getattr(load_broker(None, {}, flags).settings, key))
