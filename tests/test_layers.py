"""The architecture as a test: who may import whom, what core must not touch, how large things may
grow."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLIENTS = ROOT / "clients"
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500
TEST_LINES_MAX = 600
ROOM_MODULES_MAX = 15

EVERYTHING_MAY_IMPORT = {"minilog", "minilog.errors", "minilog.config"}
DISK = {"minilog.storage.disk", "minilog.storage.checkpoint", "minilog.machine"}
LOG = {"minilog.storage.log", "minilog.storage.segment"}
WIRE_SHARED = {"minilog.wire.bounded", "minilog.wire.message_base", "minilog.wire.topic_partition"}
CORE_SHARED = {"minilog.wire"} | {
    f"minilog.core.{name}"
    for name in (
        "access",
        "bounds",
        "deadlines",
        "effects",
        "gate",
        "health",
        "image",
        "lost_replay",
        "metadata_view",
        "moves",
        "places",
        "ports",
        "shares",
        "stamps",
        "topic_names",
        "turns",
    )
}
CLIENT_SHARED = {
    "minilog.wire",
    "minilog_client.credential",
    "minilog_client.settings",
    "minilog_client.values",
    "minilog_client.connection",
    "minilog_client.observing",
}
MAY_IMPORT: dict[str, set[str]] = {
    "minilog.failures": set(),
    "minilog.error_base": set(),
    "minilog.errors": {"minilog.error_base", "minilog.failures"},
    "minilog.config": set(),
    "minilog.machine": set(),
    "minilog.settings_checks": set(),
    "minilog.settings": {"minilog.settings_checks"},
    "minilog.wire": {"minilog.wire"},
    "minilog.wire.codec": {"minilog.wire.codec", "minilog.wire.bounded"},
    "minilog.wire.journal": {"minilog.wire.journal", "minilog.wire.records", "minilog.wire.batch", *WIRE_SHARED},
    "minilog.core": CORE_SHARED,
    "minilog.core.access": {"minilog.core.access", "minilog.wire"},
    "minilog.security_file": {"minilog.core.access", "minilog.settings_checks", "minilog.wire"},
    "minilog.core.replication": {"minilog.core.replication", *CORE_SHARED},
    "minilog.core.groups": {"minilog.core.groups", "minilog.wire"},
    "minilog.core.controller": {"minilog.core.controller", *CORE_SHARED},
    "minilog.core.broker": {"minilog.core.broker", "minilog.core.replication", "minilog.core.groups", *CORE_SHARED},
    "minilog.core.broker.coordinator": {
        "minilog.core.broker.coordinator",
        "minilog.core.broker.lookup",
        "minilog.core.broker.state",
        "minilog.core.broker.turn",
        "minilog.core.replication",
        "minilog.core.groups",
        *CORE_SHARED,
    },
    "minilog.storage": {"minilog.storage", "minilog.machine", "minilog.wire"},
    "minilog.storage.open_files": {"minilog.machine"},
    "minilog.storage.disk": {"minilog.storage.open_files", "minilog.machine"},
    "minilog.storage.checkpoint": {"minilog.storage.disk"},
    "minilog.storage.segment": {"minilog.storage.segment", *DISK, "minilog.wire"},
    "minilog.storage.log": {"minilog.storage.log", "minilog.storage.segment", *DISK, "minilog.wire"},
    "minilog.storage.compaction": {"minilog.storage.compaction", *LOG, *DISK, "minilog.wire"},
    "minilog.storage.recovery": {"minilog.storage.recovery", *LOG, *DISK, "minilog.wire"},
    "minilog.server": {
        "minilog.server",
        "minilog.machine",
        "minilog.security_file",
        "minilog.settings_checks",
        *CORE_SHARED,
    },
    "minilog.console": {"minilog.console", "minilog.server", *CORE_SHARED},
    "minilog.broker": {
        "minilog.broker",
        "minilog.console",
        "minilog.machine",
        "minilog.server",
        "minilog.core",
        "minilog.storage",
        "minilog.wire",
    },
    "minilog.broker.http": {
        "minilog.broker.http",
        "minilog.broker.ports",
        "minilog.broker.metrics",
        "minilog.broker.figures",
        "minilog.broker.group_lag",
        "minilog.broker.lost_replays",
        "minilog.console",
        "minilog.server",
        *CORE_SHARED,
    },
    "minilog.standalone": {"minilog.broker", "minilog.controller", "minilog.server"},
    "minilog.controller": {
        "minilog.controller",
        "minilog.console",
        "minilog.server",
        "minilog.core.controller",
        *CORE_SHARED,
        *DISK,
    },
    "minilog.cli": {
        "minilog.cli",
        "minilog.machine",
        "minilog.settings",
        "minilog.security_file",
        "minilog.wire",
        "minilog.storage.inspect",
        "minilog.broker.main",
        "minilog.standalone",
        "minilog.controller.main",
        "minilog.controller.migrate",
        "minilog.controller.recover",
        "minilog_client",
    },
    "minilog.__main__": {"minilog.cli"},
    "minilog.testing": {"minilog.testing", "minilog.cli", "minilog.settings", "minilog.wire", "minilog_client"},
    "minilog_client": {"minilog_client", "minilog.wire"},
    "minilog_client.credential": set(),
    "minilog_client.settings": {"minilog.wire"},
    "minilog_client.values": {"minilog.wire"},
    "minilog_client.connection": CLIENT_SHARED,
    "minilog_client.observing": {
        "minilog_client.observing",
        "minilog_client.settings",
        "minilog_client.values",
        "minilog.wire",
    },
    "minilog_client.producer": {"minilog_client.producer", *CLIENT_SHARED},
    "minilog_client.serializers": {"minilog_client.serializers"},
    "minilog_client.consumer": {"minilog_client.consumer", "minilog_client.serializers", *CLIENT_SHARED},
    "minilog_client.group": {
        "minilog_client.group",
        "minilog_client.consumer",
        "minilog_client.serializers",
        *CLIENT_SHARED,
    },
    "minilog_client.worker": {
        "minilog_client.worker",
        "minilog_client.consumer",
        "minilog_client.producer",
        "minilog_client.serializers",
        *CLIENT_SHARED,
    },
    "minilog_client.admin": {
        "minilog_client.admin",
        "minilog_client.producer.receipts",
        "minilog_client.group",
        "minilog_client.consumer",
        *CLIENT_SHARED,
    },
}
"""Layer -> what it may import of ours besides EVERYTHING_MAY_IMPORT. The longest name that fits
decides."""

CORE_BANNED_MODULES = {"asyncio", "aiohttp", "time", "os", "threading", "uuid", "socket", "datetime", "secrets"}
CORE_BANNED_CALLS = {"hash", "id", "print", "open"}
STORAGE_BANNED_MODULES = {"asyncio", "aiohttp", "uuid"}
WIRE_BANNED_MODULES = {"asyncio", "aiohttp", "os", "threading", "socket"}

TOP_LEVEL = {
    ".ci", ".git", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile",
    "README.md", "SECURITY.md", "clients", "config", "grafana", "minilog", "pyproject.toml", "requirements.lock",
    "setup.py", "tests",
}  # fmt: skip
TOP_LEVEL_UNTRACKED = {".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", "build", "dist"}

LONG_FROM = 400
LONG_MODULES = {
    "minilog.config": "every setting with its bounds, in the one place that files, variables and flags are held against",
    "minilog.wire.routes": "one table: every route with its parameters, as the server, clients and /openapi.json read it",
    "minilog.wire.codec.codec": "one compiled module: who encodes, decodes and checks records shares its varints",
    "minilog.storage.segment.segment": "one file pair: what is written, cut and sealed keeps the same state whole",
    "minilog.storage.store": "one data directory: what a start, a stop and a deletion do keeps one order",
    "minilog.errors": "one class for each error, in the tree that DESIGN draws",
    "minilog_client.producer.accumulator": "one state machine: each of its steps moves the same queues and the same budget",
}
"""Modules of more than 400 lines, and why they may be. Who adds one splits it, or says why here.
The wall is at 500."""

LARGER_FUNCTIONS: dict[str, int] = {}
"""A ratchet: what is larger than the limit today, with its size. It may shrink, never grow, and
nothing is added."""


def modules() -> dict[str, Path]:
    found = {}
    for base, package in ((ROOT, "minilog"), (CLIENTS, "minilog_client")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


MODULES = modules()
LOOKED_AT = (ast.Import, ast.ImportFrom, ast.Call, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All nodes of a file that a test below looks at. Each file is read and walked once, whatever
    number of tests ask."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return [node for node in ast.walk(tree) if isinstance(node, LOOKED_AT)]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def imports(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """(absolute name, line) of everything a module imports, ``from x import y`` as x.y when y is a
    module of ours."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import by the absolute name"
            base = node.module or ""
            for alias in node.names:
                yield (f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base), node.lineno


def layer_of(module: str) -> str | None:
    fitting = [layer for layer in MAY_IMPORT if within(module, layer)]
    return max(fitting, key=len, default=None)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module: str) -> None:
    if module == "minilog":
        assert not list(imports(module, MODULES[module])), "the package itself imports nothing, so it loads at once"
        return
    layer = layer_of(module)
    assert layer is not None, f"{module} belongs to no layer: name its layer in MAY_IMPORT"
    allowed = MAY_IMPORT[layer]
    for name, line in imports(module, MODULES[module]):
        ours = within(name, "minilog") or within(name, "minilog_client")
        if ours and name not in EVERYTHING_MAY_IMPORT:
            assert any(within(name, package) for package in allowed), (
                f"{MODULES[module]}:{line}: {layer} must not import {name}"
            )


def test_no_circles() -> None:
    """Also none that exists for type checkers alone. A module is on a circle when it can be reached
    from itself."""
    ours = {module: {name for name, _ in imports(module, path)} & MODULES.keys() for module, path in MODULES.items()}
    left = dict(ours)
    while free := {module for module, needs in left.items() if not (needs - {module}) & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in free}
    assert not left, f"these modules lean on each other: {sorted(left)}"


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, "minilog.core")])
def test_core_touches_nothing_that_is_not_given_to_it(module: str) -> None:
    path = MODULES[module]
    for name, line in imports(module, path):
        top = name.partition(".")[0]
        assert top not in CORE_BANNED_MODULES, f"{path}:{line}: core must not import {name}"
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in CORE_BANNED_CALLS, f"{path}:{node.lineno}: core must not call {node.func.id}()"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert "random" not in names, f"{path}:{node.lineno}: core takes a random.Random; import only the class"
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            names = [alias.name for alias in node.names]
            assert names == ["Random"], f"{path}:{node.lineno}: core may import only the class Random"


@pytest.mark.parametrize("module", [name for name in MODULES if within(name, "minilog.core")])
def test_core_makes_no_randomness_of_its_own(module: str) -> None:
    for node in nodes(MODULES[module]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "Random", f"{MODULES[module]}:{node.lineno}: the Random is injected"


@pytest.mark.parametrize(
    ("layer", "banned"), [("minilog.storage", STORAGE_BANNED_MODULES), ("minilog.wire", WIRE_BANNED_MODULES)]
)
def test_bans_of_the_lower_layers(layer: str, banned: set[str]) -> None:
    for module, path in MODULES.items():
        if within(module, layer):
            for name, line in imports(module, path):
                assert name.partition(".")[0] not in banned, f"{path}:{line}: {layer} must not import {name}"


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, line, lines of code) of every function; decorators are not counted."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("module", MODULES)
def test_sizes(module: str) -> None:
    path = MODULES[module]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX, f"{path} is too long: split it"
    for name, line, length in functions(path):
        limit = LARGER_FUNCTIONS.get(f"{module}.{name}", FUNCTION_LINES_MAX)
        assert length <= limit, f"{path}:{line}: {name} has {length} lines, allowed are {limit}: split it"


def test_long_modules_are_few_and_have_a_reason() -> None:
    long = {name for name, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > LONG_FROM}
    assert long == set(LONG_MODULES)


def test_tests_are_cut_by_subject_too() -> None:
    found = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    long = {path: lines for path, lines in found.items() if lines > TEST_LINES_MAX}
    assert not long, f"these files have more than {TEST_LINES_MAX} lines, split them by subject: {long}"


def test_every_room_has_a_sign() -> None:
    """What is decided in it, who may come in, what it may import, where to begin."""
    rooms = [path for path in MODULES.values() if path.name == "__init__.py"]
    unsigned = [str(path.relative_to(ROOT)) for path in rooms if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not unsigned, f"these rooms have no sign at the door: {unsigned}"


def test_no_room_is_crowded() -> None:
    """Tests included. The sign at the door is not counted."""
    folders = (ROOT / "minilog", ROOT / "clients", ROOT / "tests")
    found = Counter(path.parent for folder in folders for path in folder.rglob("*.py") if path.name != "__init__.py")
    crowded = {str(room.relative_to(ROOT)): count for room, count in found.items() if count > ROOM_MODULES_MAX}
    assert not crowded, f"these rooms hold more than {ROOM_MODULES_MAX} modules: {crowded}"


def test_names_that_say_nothing_are_not_used() -> None:
    for module in MODULES:
        assert module.rpartition(".")[2] not in {"utils", "helpers", "common", "manager", "misc"}, module


def test_the_top_level_holds_only_what_belongs_there() -> None:
    seen = {path.name for path in ROOT.iterdir()} - TOP_LEVEL_UNTRACKED
    extra = {name for name in seen - TOP_LEVEL if not name.endswith(".egg-info")}
    assert not extra, f"these do not belong to the top level: {sorted(extra)}"


@pytest.mark.parametrize("module", [name for name in MODULES if not within(name, "minilog.wire")])
def test_nobody_takes_the_base_of_a_batchs_deltas_for_a_time(module: str) -> None:
    """The field holds a delete horizon in batches that cleaning has met: ``first_timestamp``
    knows."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr == "base_timestamp":
            assert module == "minilog_client.consumer.records", f"{MODULES[module]}:{node.lineno}: reads the raw field"
