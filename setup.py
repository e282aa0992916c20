"""The build: everything is in pyproject.toml, but for two parts.

config/ and grafana/ lie at the top of the repository. The wheel carries them inside the package, in
minilog/files/, where `minilog config files` finds them.

wire/codec/codec.py, the loop over single records, is compiled with mypyc if mypy and a C compiler
are there, and left as it is if not. It does the same either way, several times slower.

    python setup.py build_ext --inplace     compile into the source tree (an editable install does)
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
from setuptools.command.build_py import build_py
from setuptools.errors import CCompilerError, ExecError, PlatformError

COMPILED_MODULES = ["minilog/wire/codec/codec.py"]
PURE = os.environ.get("MINILOG_PURE") == "1"
REQUIRED = os.environ.get("MINILOG_COMPILED") == "1"


def fall_back(reason: object) -> None:
    if REQUIRED:
        raise SystemExit(f"minilog: MINILOG_COMPILED=1, but {reason}")
    print(f"minilog: {reason}; the record codec stays pure Python", file=sys.stderr)


def extensions() -> list[Any]:
    """C sources made from the modules to compile. None when asked for pure Python or when mypy is
    missing."""
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
    """mypyc makes two libraries of one module, useless without each other: if one fails, neither
    may stay.

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


OPERATOR_FILES = (
    "config/*.toml",
    "config/prometheus.yml",
    "config/prometheus-secured.yml",
    "config/alerts.yml",
    "config/alertmanager.yml",
    "config/systemd/*.service",
    "config/container/Containerfile",
    "config/kubernetes/*.yml",
    "grafana/*/*.json",
    "grafana/*/*/*.yml",
)
PACKED = "minilog/files"


class WithOperatorFiles(build_py):
    """An editable install copies nothing: there the checkout holds the files."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for target, source in self._packed().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target, preserve_mode=False)

    def _packed(self) -> dict[str, str]:
        paths = sorted(path for pattern in OPERATOR_FILES for path in Path().glob(pattern))
        return {str(Path(self.build_lib, PACKED, path)): str(path) for path in paths}

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._packed()]

    def get_source_files(self) -> list[str]:
        """What a source distribution has to carry."""
        return [*super().get_source_files(), *self._packed().values()]


setup(ext_modules=extensions(), cmdclass={"build_ext": AllOrNothing, "build_py": WithOperatorFiles})
