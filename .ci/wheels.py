"""Build a wheel with the compiled codec for each interpreter that is named or found, and try it
(`make wheels`).

Each wheel is installed into a fresh environment and tried from an empty folder: the codec is the
compiled one, the files for operators are inside, and a broker that the fixtures start takes records
and gives them back. Ends with 1 when one fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = ("3.11", "3.12", "3.13")
TRIAL = """
from pathlib import Path
import subprocess, sys
import minilog
import minilog.wire.codec.codec as codec

def test_what_is_installed(tmp_path):
    assert codec.__file__.endswith(".so"), f"the codec is not compiled: {codec.__file__}"
    assert Path(sys.prefix) in Path(minilog.__file__).parents, "tried from the checkout, not from the wheel"
    command = [Path(sys.executable).parent / "minilog", "config", "files", tmp_path]
    subprocess.run(command, check=True)
    assert list(tmp_path.rglob("*.json")), "the dashboards are missing"

def test_records_come_back(minilog_broker):
    minilog_broker.create_topic("t")
    sent = [b"%d" % number for number in range(1000)]
    with minilog_broker.client() as client:
        with client.producer() as producer:
            for value in sent:
                producer.send("t", value)
        with client.consumer("t", start="earliest") as consumer:
            assert [record.value for _, record in zip(sent, consumer)] == sent
"""


def interpreters() -> list[Path]:
    """Of each version the first that works: on the PATH, or where pyenv keeps them."""
    found = []
    for version in VERSIONS:
        installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
        for candidate in (shutil.which(f"python{version}"), *installed):
            if candidate and _works(Path(candidate), version):
                found.append(Path(candidate))
                break
        else:
            print(f"python{version}: not found here, not tried")
    return found


def _works(python: Path, version: str) -> bool:
    check = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
    return subprocess.run([python, "-c", check], capture_output=True, check=False).returncode == 0


def build_and_try(python: Path, folder: Path, wheels: Path) -> str:
    """What was built, in a line. Raises CalledProcessError."""
    environment = {**os.environ, "PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*command: str | Path, cwd: Path = folder) -> None:
        subprocess.run([str(part) for part in command], cwd=cwd, env=environment, check=True)

    source, built, empty = folder / "source", folder / "built", folder / "empty"
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "*.so", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, ignore=ignored)
    empty.mkdir()
    run(python, "-m", "venv", folder / "venv")
    pip = (folder / "venv/bin/python", "-m", "pip", "install", "--quiet")
    run(python, "-m", "venv", folder / "build-venv")
    run(folder / "build-venv/bin/python", "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", built, source)
    (wheel,) = built.glob("*.whl")
    run(*pip, wheel, "pytest")
    (empty / "test_wheel.py").write_text(TRIAL)
    began_s = time.monotonic()
    run(folder / "venv/bin/python", "-m", "pytest", "-q", "-W", "error", "test_wheel.py", cwd=empty)
    tried_s = time.monotonic() - began_s
    wheels.mkdir(parents=True, exist_ok=True)
    shutil.copy(wheel, wheels)
    return f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB, compiled, tried in {tried_s:.1f} s"


def main() -> int:
    pythons = [Path(name) for name in sys.argv[1:]] or interpreters()
    failed = 0
    for python in pythons:
        with tempfile.TemporaryDirectory(prefix="minilog-wheel-") as folder:
            try:
                print(build_and_try(python, Path(folder), ROOT / "build/wheels"), flush=True)
            except (subprocess.CalledProcessError, OSError) as error:
                failed += 1
                print(f"{python}: {error}", file=sys.stderr, flush=True)
    return 1 if failed or not pythons else 0


if __name__ == "__main__":
    sys.exit(main())
