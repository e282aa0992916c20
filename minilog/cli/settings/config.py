"""``minilog config``: what the settings are, where each came from, and whether a file is right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer

from minilog.cli.output import Column, Format, OutputOption, note, show_rows
from minilog.cli.settings.config_files import write_files
from minilog.cli.settings.settings_options import note_service_links
from minilog.config import BrokerSettings, ControllerSettings
from minilog.security_file import read_private, read_security
from minilog.settings import Loaded, load_broker, load_controller, role_of, variable

app = typer.Typer(
    no_args_is_help=True, help="What the settings are, where each came from, and whether a file is right."
)

app.command("files")(write_files)

RoleOption = Annotated[
    Literal["broker", "controller"] | None,
    typer.Option("--role", help="Which process it is for; told from the file when it can be."),
]
COLUMNS = [
    Column("key", "KEY"),
    Column("value", "VALUE"),
    Column("origin", "FROM"),
    Column("variable", "VARIABLE", wide=True),
]
UNSET = {"broker": {"broker_id": "0", "data_dir": "(not set)"}, "controller": {"data_dir": "(not set)"}}
"""Stand-ins for what has no default, so that ``config show`` works without a file."""


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="TOML file.")] = None,
    role: RoleOption = None,
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", help="key=value")] = None,
    output: OutputOption = Format.table,
) -> None:
    """The effective configuration: file, then MINILOG_* environment, then --set; and where each
    value came from."""
    role = role or (role_of(file) if file else "broker")
    note_service_links()
    show_rows(rows(_load(role, file, set_ or [], UNSET[role])), COLUMNS, output)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="TOML file.")],
    role: RoleOption = None,
) -> None:
    """Whether a file would be accepted, and the security file, the token and the key that it names.
    The environment is left out of it."""
    role = role or role_of(file)
    load = load_broker if role == "broker" else load_controller
    settings = load(file).settings
    if settings.security_file:
        for warning in read_security(settings.security_file).warnings:
            note(f"warning: {warning}")
    for private in filter(None, (settings.token_file, settings.tls_key_file)):
        read_private(private)
    note(f"{file} is a complete and valid {role} configuration")


def rows(loaded: Loaded[BrokerSettings] | Loaded[ControllerSettings]) -> list[dict[str, Any]]:
    table = msgspec.to_builtins(loaded.settings)
    limits = {f"limits.{key}": value for key, value in table.pop("limits").items()}
    return [
        {"key": key, "value": value, "origin": loaded.origins[key], "variable": variable(key)}
        for key, value in {**table, **limits}.items()
    ]


def _load(
    role: str, file: Path | None, set_: list[str], unset: dict[str, str]
) -> Loaded[BrokerSettings] | Loaded[ControllerSettings]:
    if role == "broker":
        return load_broker(file, os.environ, set_, unset)
    return load_controller(file, os.environ, set_, unset)
