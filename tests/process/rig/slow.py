"""``python -m tests.process.rig.slow MODULE:NAME[.METHOD]=SECONDS ... -- COMMAND``: minilog's
command in a process in which one step takes long, as on a slow disk. The step says on stderr when
it begins: ``slow step: NAME``."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

from minilog.cli.main import main


def slow_down(target: str, seconds: float) -> None:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    holder: Any = importlib.import_module(module)
    for owner in owners:
        holder = getattr(holder, owner)
    setattr(holder, name, slowly(getattr(holder, name), path, seconds))


def slowly(real: Callable[..., Any], path: str, seconds: float) -> Callable[..., Any]:
    def step(*arguments: Any, **options: Any) -> Any:
        print(f"slow step: {path}", file=sys.stderr, flush=True)
        time.sleep(seconds)
        return real(*arguments, **options)

    return step


if __name__ == "__main__":
    border = sys.argv.index("--")
    for argument in sys.argv[1:border]:
        target, _, seconds = argument.partition("=")
        slow_down(target, float(seconds))
    main(sys.argv[border + 1 :])
