"""Prometheus and a cluster that asks who it is, with config/prometheus-secured.yml as operators get it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from minilog.cli.local.ports import free_ports
from tests.process.conftest import leave_out
from tests.process.rig.prometheus import EXAMPLE_BROKERS, EXAMPLE_CONTROLLER, ROOT, unavailable
from tests.process.security.secured import Secured, secured, until

CONFIG = ROOT / "config" / "prometheus-secured.yml"


@pytest.fixture(autouse=True)
def installed() -> None:
    missing = unavailable()
    if missing:
        leave_out(missing)


def written(cluster: Secured, folder: Path, token: str) -> Path:
    """The file with this cluster's addresses and files."""
    brokers = [f"127.0.0.1:{cluster.port(name)}" for name in cluster.members if name.startswith("broker")]
    text = CONFIG.read_text()
    for example, real in (
        (EXAMPLE_BROKERS, json.dumps(brokers)),
        (EXAMPLE_CONTROLLER, json.dumps([f"127.0.0.1:{cluster.port('controller')}"])),
        ("/etc/minilog/ca.pem", str(cluster.folder / "ca.pem")),
        ("/etc/minilog/prometheus.token", str(cluster.folder / token)),
        ("5s ", "1s "),
    ):
        assert example in text, example
        text = text.replace(example, real)
    shutil.copy(ROOT / "config" / "alerts.yml", folder / "alerts.yml")
    path = folder / "prometheus.yml"
    path.write_text(text)
    return path


def test_the_targets_are_up_with_the_role_metrics_alone(tmp_path: Path) -> None:
    with secured(tmp_path) as cluster:
        path = written(cluster, tmp_path, "metrics.token")
        checked = subprocess.run(
            ["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        port = free_ports(1)[0]
        command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        child = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(lambda: up(port) == 3, "all targets to be up")
        finally:
            child.terminate()
            child.wait(20)


def up(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=up==1", timeout=5) as answer:
            return len(json.load(answer)["data"]["result"])
    except OSError:
        time.sleep(0.1)
        return 0
