"""Whoever asks, the answers are those that /openapi.json describes: schemathesis asks as nobody, as
somebody with few rights, as Prometheus, and as an administrator."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.security.secured import Secured, secured

RIG = Path(__file__).parents[1] / "rig"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)
TIME_S = 300


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("roles")) as made:
        made.command("ann", "topic", "create", "orders.eu", "-p", "1", "-r", "2")
        yield made
        for name in made.members:
            assert "Traceback" not in made.log(name)
            assert "mlt_" not in made.log(name)


@pytest.mark.parametrize("who", ["", "shop", "metrics", "ann"], ids=["nobody", "few rights", "metrics", "admin"])
@pytest.mark.parametrize("process", ["broker-1", "controller"])
def test_what_is_answered_is_what_is_described(cluster: Secured, process: str, who: str) -> None:
    url = cluster.url(process)
    shown = ["--header", f"Authorization: Bearer {cluster.token_of(who)}"] if who else []
    words = ["--config-file", str(RIG / "schemathesis.toml"), "run", f"{url}/openapi.json", *shown]
    trusts = {name: str(cluster.folder / "ca.pem") for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")}
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *words, "--checks", CHECKS, "--max-examples", "4", "--no-color"],
        env={**os.environ, **trusts, "SCHEMATHESIS_HOOKS": "tests.process.rig.schemathesis_hooks"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=TIME_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
