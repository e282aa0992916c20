"""The files for systemd, containers and Kubernetes: read by those who will read them, where that can
be here, and in any case true to the settings and routes there are.

Not run here, because they are large: hadolint on the Containerfile, kubeconform or
kubernetes-validate on the manifests (CONTRIBUTING.md says how).
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import minilog
from minilog.config import BrokerSettings, ControllerSettings
from minilog.controller.openapi import document
from minilog.settings import load_broker, load_controller
from minilog.wire.routes import ROUTES

CONFIG = Path(__file__).parents[2] / "config"
BROKER_UNIT = CONFIG / "systemd" / "minilog-broker@.service"
CONTROLLER_UNIT = CONFIG / "systemd" / "minilog-controller.service"
CONTAINERFILE = CONFIG / "container" / "Containerfile"
BROKER = BrokerSettings(broker_id=1, data_dir="d")
CONTROLLER = ControllerSettings(data_dir="d")


def lines_of(unit: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z]+)=(.*)$", unit.read_text(), re.MULTILINE)
    return dict(found)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"),  # there its absence fails
    reason="needs systemd-analyze (Debian: systemd)",
)
@pytest.mark.parametrize("unit", [BROKER_UNIT, CONTROLLER_UNIT], ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_the_units(unit: Path, tmp_path: Path) -> None:
    """For a program that is there, and as instance 1."""
    copy = tmp_path / unit.name.replace("@", "@1")
    copy.write_text(unit.read_text().replace("/opt/minilog/bin/minilog", sys.executable))
    told = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
    copy.write_text(copy.read_text().replace("ProtectSystem=strict", "ProtectSystems=strict"))
    told = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert "ProtectSystems" in told.stderr, "it reads what it is given"


@pytest.mark.parametrize(
    ("unit", "example", "load", "data_dir"),
    [
        (BROKER_UNIT, "broker.toml", load_broker, "/var/lib/minilog/broker-7"),
        (CONTROLLER_UNIT, "controller.toml", load_controller, "/var/lib/minilog/controller"),
    ],
    ids=["broker", "controller"],
)
def test_what_a_unit_starts_is_a_command_with_settings_there_are(
    unit: Path, example: str, load: Any, data_dir: str
) -> None:
    lines = lines_of(unit)
    words = shlex.split(lines["ExecStart"].replace("%i", "7"))
    sets = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    settings = load(CONFIG / example, {}, sets).settings
    assert settings.data_dir == data_dir
    assert getattr(settings, "broker_id", 7) == 7
    kept = [f"/var/lib/{folder}" for folder in lines["StateDirectory"].replace("%i", "7").split()]
    assert data_dir in kept, "systemd makes it, and lets it be written"
    assert words[1:3] == [example.removesuffix(".toml"), "run"]


@pytest.mark.parametrize("unit", [BROKER_UNIT, CONTROLLER_UNIT], ids=lambda unit: unit.name)
def test_a_unit_waits_for_a_clean_stop_and_allows_all_connections(unit: Path) -> None:
    lines = lines_of(unit)
    assert int(lines["TimeoutStopSec"]) * 1000 > 2 * BROKER.shutdown_timeout_ms
    assert int(lines["LimitNOFILE"]) > 4 * BROKER.limits.connections_max
    assert (lines["KillSignal"], lines["Restart"], lines["User"]) == ("SIGTERM", "on-failure", "minilog")
    assert (lines["NoNewPrivileges"], lines["ProtectSystem"]) == ("yes", "strict")
    assert lines["RestartPreventExitStatus"] == "2", "wrong usage (cli/output.py)"


@pytest.mark.parametrize(("name", "load"), [("controller", load_controller), ("broker", load_broker)])
def test_the_settings_of_the_page_about_deploying_are_valid(name: str, load: Any, tmp_path: Path) -> None:
    page = (CONFIG.parent / "minilog" / "docs" / "deploying.md").read_text()
    (text,) = re.findall(rf"```toml\n# {name}\n(.*?)```", page, re.DOTALL)
    file = tmp_path / f"{name}.toml"
    file.write_text(text)
    settings = load(file, {}, ()).settings
    assert settings.data_dir.startswith("/var/lib/minilog/")
    assert settings.host.startswith("10.0.0.")


# --- container ------------------------------------------------------------------------------------


class Answer(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def probed() -> Iterator[http.server.HTTPServer]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False)])
def test_the_image_is_healthy_when_it_is_ready(
    probed: http.server.HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, is_healthy: bool
) -> None:
    monkeypatch.setattr(Answer, "status", status)
    (words,) = re.findall(r"HEALTHCHECK [^\n]*\\\n\s+CMD (\[.*\])", CONTAINERFILE.read_text())
    command = json.loads(words)
    environment = {**os.environ, "MINILOG_PORT": str(probed.server_port), "http_proxy": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, capture_output=True, check=False)
    assert (done.returncode == 0) is is_healthy


def test_the_image_runs_as_nobody_in_particular_and_opens_the_usual_ports() -> None:
    text = CONTAINERFILE.read_text()
    user = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert user
    assert int(user[-1]) >= 10_000
    assert f"EXPOSE {BROKER.port} {CONTROLLER.port}" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert text.count("\nFROM ") == 2, "no compiler in what runs"


# --- Kubernetes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects() -> dict[tuple[str, str], Any]:
    loaded = yaml.safe_load_all((CONFIG / "kubernetes" / "minilog.yml").read_text())
    return {(one["kind"], one["metadata"]["name"]): one["spec"] for one in loaded}


def container(objects: dict[tuple[str, str], Any], name: str) -> Any:
    (one,) = objects["StatefulSet", name]["template"]["spec"]["containers"]
    return one


def environment(one: Any) -> dict[str, str]:
    """As the pod with number 2 sees it."""
    told = {"POD_NAME": "minilog-broker-2", "MINILOG_BROKER_ID": "2"}
    values = {each["name"]: each.get("value", told.get(each["name"], "")) for each in one["env"]}
    return {name: value.replace("$(POD_NAME)", "minilog-broker-2") for name, value in values.items()}


def test_pods_begin_with_settings_that_are_complete_and_valid(objects: dict[tuple[str, str], Any]) -> None:
    broker = load_broker(None, environment(container(objects, "minilog-broker")), ()).settings
    assert (broker.broker_id, broker.advertised_url) == (2, "http://minilog-broker-2.minilog-brokers:8082")
    controller = load_controller(None, environment(container(objects, "minilog-controller")), ()).settings
    assert broker.controller_url == f"http://minilog-controller-0.minilog-controller:{controller.port}"
    for name, settings in (("minilog-broker", broker), ("minilog-controller", controller)):
        one = container(objects, name)
        assert one["ports"][0]["containerPort"] == settings.port
        assert settings.data_dir.startswith(one["volumeMounts"][0]["mountPath"] + "/")
        assert one["image"] == f"minilog:{minilog.__version__}"
        assert one["args"] == [name.removeprefix("minilog-"), "run"]


def test_probes_ask_routes_there_are(objects: dict[tuple[str, str], Any]) -> None:
    paths = {"minilog-broker": {route.path for route in ROUTES}, "minilog-controller": set(document()["paths"])}
    for name, known in paths.items():
        one = container(objects, name)
        assert {one[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")} == {
            "/readyz",
            "/healthz",
        }
        assert {"/readyz", "/healthz"} <= known


def test_sets_services_and_the_budget_mean_the_same_pods(objects: dict[tuple[str, str], Any]) -> None:
    for name in ("minilog-broker", "minilog-controller"):
        stateful = objects["StatefulSet", name]
        labels = stateful["template"]["metadata"]["labels"]
        assert stateful["selector"]["matchLabels"] == labels
        assert objects["Service", stateful["serviceName"]]["selector"] == labels
        pod = stateful["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] * 1000 > 2 * BROKER.shutdown_timeout_ms
        assert pod["securityContext"]["runAsNonRoot"]
    brokers = objects["StatefulSet", "minilog-broker"]
    assert objects["PodDisruptionBudget", "minilog-brokers"]["selector"] == brokers["selector"]
    assert brokers["replicas"] - objects["PodDisruptionBudget", "minilog-brokers"]["maxUnavailable"] >= 2
