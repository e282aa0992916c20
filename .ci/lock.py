"""Write requirements.lock: every package that `make demo` and `make test` install, with its version
and its hashes.

The part above MARK is what the product, its build and the demo need; below it is what the tests
need on top. pip checks the hashes, so a registry serves these very files or none. The list is for
every Python and platform that pyproject.toml allows (markers say which). It names no address. `make
lock` runs this.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
MARK = "# --- the tests need these as well ---"
HEAD = "# Written by `make lock`; do not edit. Versions and hashes of all that `make demo` and `make test` install."


def compiled(requirements: list[str], python: str, *options: str) -> dict[str, str]:
    """The pinned requirements with hashes, by name, as uv resolves them. Ends the process where it
    cannot."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--universal", "--python-version", python]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--no-emit-index-url", "--quiet", *options]
    done = subprocess.run(command, input="\n".join(requirements), text=True, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"make lock: uv could not resolve {', '.join(requirements)}:\n{done.stderr}")
    entries: dict[str, str] = {}
    for line in done.stdout.splitlines():
        if not line.startswith((" ", "#")):
            name = line
            entries[name] = ""
        entries[name] += line + "\n"
    return entries


def main() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = project["optional-dependencies"]
    python = project["requires-python"].removeprefix(">=")
    product = [*project["dependencies"], *pyproject["build-system"]["requires"]]
    everything = compiled([*product, *groups["dev"]], python)
    pins = [entry.splitlines()[0].removesuffix(" \\") for entry in everything.values()]
    needed = compiled(product, python, "--constraint", _written(pins))
    needed |= compiled(extras["demo"], python, "--no-deps")  # the data set alone, without what reads it
    tests = {name: entry for name, entry in everything.items() if name not in needed}
    LOCK.write_text("\n".join([HEAD, "", *needed.values(), MARK, "", *tests.values()]).replace("\n\n\n", "\n\n"))
    print(f"{LOCK.name}: {len(needed)} packages for the product and the demo, {len(tests)} more for the tests")


def _written(pins: list[str]) -> str:
    path = ROOT / "build" / "pins.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(pins))
    return str(path)


if __name__ == "__main__":
    main()
