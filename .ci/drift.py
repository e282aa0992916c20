"""Install what pyproject.toml allows at its edge: the newest packages, or the oldest ones it names
(`make test-latest`, `make test-oldest`). Says which versions they are, so that a failure is a drift
that can be named.
"""

from __future__ import annotations

import subprocess
import sys

RESOLUTIONS = {"latest": "highest", "oldest": "lowest-direct"}


def main(edge: str) -> None:
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    subprocess.run([*uv, "--resolution", RESOLUTIONS[edge], "--editable", ".", "--group", "dev"], check=True)
    listed = subprocess.run([*uv[:4], "list", "--python", sys.executable], check=True, capture_output=True, text=True)
    print(f"with the {edge} packages that pyproject.toml allows:")
    print(listed.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
