"""The build: everything is in pyproject.toml, but for one optional part.

minilog/wire/codec.py, the loop over single records, is compiled with mypyc if mypy and a C compiler are there, and
left as it is if not; it does the same either way, several times slower.

    python setup.py build_ext --inplace     compile into the source tree (an editable install does this too)
    MINILOG_PURE=1 pip install .            never compile
    MINILOG_COMPILED=1 pip install .        fail rather than fall back
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

COMPILED_MODULES = ["minilog/wire/codec.py"]
PURE = os.environ.get("MINILOG_PURE") == "1"
REQUIRED = os.environ.get("MINILOG_COMPILED") == "1"


def fall_back(reason: object) -> None:
    if REQUIRED:
        raise SystemExit(f"minilog: MINILOG_COMPILED=1, but {reason}")
    print(f"minilog: {reason}; the record codec stays pure Python", file=sys.stderr)


def extensions() -> list[Any]:
    """C sources made from the modules to compile; none when asked for pure Python or when mypy is missing."""
    if PURE:
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        fall_back("mypy is not installed")
        return []
    try:
        return list(mypycify(["--config-file=", *COMPILED_MODULES], opt_level="3"))
    except (Exception, SystemExit) as error:  # mypycify ends the process when a module does not type-check
        fall_back(f"mypyc failed: {error!r}")
        return []


class AllOrNothing(build_ext):
    """mypyc makes two libraries of one module, useless without each other: if one fails, neither may stay.

    Built anew every time, so that a library older than its source is always a stale one.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True

    def build_extensions(self) -> None:
        try:
            super().build_extensions()
        except (CCompilerError, ExecError, PlatformError) as error:
            fall_back(f"the C compiler failed: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build_ext": AllOrNothing})
