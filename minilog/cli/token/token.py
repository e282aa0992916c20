"""``minilog token create``: a new principal, or one more token of it, in a security file. The token
is printed once. The file keeps its digest only, so nobody can print it again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from minilog.cli.output import CliError, ExitCode, note
from minilog.security_file import NAME, parse_security, read_private

app = typer.Typer(no_args_is_help=True, help="Credentials of who may use a cluster.")
PREFIX: Final = "mlt_"
"""So that a token is found where it should not be: in a URL, in a repository."""


def new_token() -> str:
    """256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who it is for: letters, digits, . _ and -.")],
    file: Annotated[
        Path, typer.Option("--file", help="The security file of the processes; made if it is not there.")
    ] = Path("security.toml"),
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help='A rule: "read orders.*", "write clicks", "group billing".')
    ] = None,
    role: Annotated[list[str] | None, typer.Option("--role", help="admin, metrics, controller or peer:N.")] = None,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=36_500, help="It expires after so many days; default: never.")
    ] = None,
) -> None:
    """Print a new token of NAME, and note its digest in the security file.

    A name that is there keeps its rules, and has one token more. Change to it, then remove the old
    one.
    """
    token = new_token()
    write_principal(file, name, token, allow or (), role or (), days)
    print(token)
    note(f"{name} is in {file} now; the token is shown this once. Processes that use the file see it within a second")


def write_principal(
    file: Path, name: str, token: str, allow: Sequence[str], roles: Sequence[str], days: int | None = None
) -> None:
    """Raises CliError, and BadSettings where what would be written could not be read."""
    if not NAME.fullmatch(name):
        raise CliError(f"{name!r} is no name: letters, digits, . _ and -, at most 100", ExitCode.USAGE)
    text = read_private(file).decode() if file.exists() else ""
    known = name in parse_security(text, str(file)).policy.principals
    if known and (allow or roles):
        raise CliError(f"{name} is in {file} already; change its rules there, and leave out --allow and --role")
    if not known and not (allow or roles):
        raise CliError(f"{name} is new, and would be allowed nothing; say --allow RULE or --role ROLE", ExitCode.USAGE)
    changed = _with_token(text, name, token, days) if known else text + _principal(name, token, allow, roles, days)
    parse_security(changed, str(file))
    write_private(file, changed)


def _token(token: str, days: int | None) -> str:
    end = "" if days is None else f", not_after = {datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}"
    return f'{{ sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"{end} }}'


def _principal(name: str, token: str, allow: Sequence[str], roles: Sequence[str], days: int | None) -> str:
    lines = [f'\n[principals."{name}"]', f"tokens = [{_token(token, days)}]"]
    lines += [f"allow = {json.dumps(list(allow))}"] if allow else []
    lines += [f"roles = {json.dumps(list(roles))}"] if roles else []
    return "\n".join(lines) + "\n"


def _with_token(text: str, name: str, token: str, days: int | None) -> str:
    """One token more, in the row that this command writes."""
    lines = text.splitlines(keepends=True)
    heads = {f"[principals.{name}]", f'[principals."{name}"]'}
    inside = False
    for place, line in enumerate(lines):
        if line.lstrip().startswith("["):
            inside = line.strip() in heads
        elif inside and line.startswith("tokens = [") and line.rstrip().endswith("]"):
            row = line.rstrip().removesuffix("]").rstrip().removesuffix(",")
            between = "" if row.endswith("[") else ", "
            lines[place] = f"{row}{between}{_token(token, days)}]\n"
            return "".join(lines)
    raise CliError(
        f"{name} is in the file, and its tokens are not on one line; add this one to them by hand: {_token(token, days)}"
    )


def write_private(file: Path, text: str) -> None:
    """All of it or nothing, with mode 0600."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise CliError(f"{file} cannot be written: {error.strerror}") from None
    try:
        with open(handle, "w", encoding="utf-8") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
