"""The security file: who is known, by which tokens, and what each may do (``security.toml``).

Only digests of tokens are in it, so whoever reads it cannot act as anybody. Still nobody but its
owner may read it, or write it: whoever can write it is everybody.

Everything wrong is refused with one sentence that names the file, the principal, the value and what
is allowed. What is right and can never mean anything is a warning.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from minilog.core.access.policy import Credential, Policy
from minilog.core.access.principal import Principal, Quota, Role, Rule
from minilog.settings_checks import BadSettings
from minilog.wire.needs import RESOURCES, Operation

BYTES_MAX: Final = 16 * 1024 * 1024
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_RESOURCE: Final = re.compile(r"[A-Za-z0-9._-]{0,249}\*?")
_PEER: Final = re.compile(r"peer:(0|[1-9][0-9]{0,9})")
_KEYS: Final = ("tokens", "allow", "roles", "requests_per_second", "bytes_per_second")
_TOKEN_KEYS: Final = ("sha256", "not_after")
_RULES: Final = (*RESOURCES, Operation.DESCRIBE)
QUOTA_MAX: Final = 2**53
SHOWN_MAX: Final = 200


class Read(NamedTuple):
    policy: Policy
    warnings: list[str]


def read_private(path: str | Path) -> bytes:
    """The content of a file that only its owner may read. Raises BadSettings."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from None
    try:
        seen = os.fstat(handle)
        mode = stat.S_IMODE(seen.st_mode)
        if not stat.S_ISREG(seen.st_mode):
            raise BadSettings(f"{path} is no plain file")
        if mode & 0o077:
            raise BadSettings(
                f"{path} has mode {mode:04o}: others than its owner may use it; allowed is 0600 (chmod 600 {path})"
            )
        if seen.st_uid not in (os.geteuid(), 0):
            raise BadSettings(f"{path} belongs to user {seen.st_uid}; it must be this process's own, or root's")
        if seen.st_size > BYTES_MAX:
            raise BadSettings(f"{path} is larger than {BYTES_MAX} bytes")
        with open(handle, "rb", closefd=False) as file:
            return file.read(BYTES_MAX)
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)


def read_security(path: str | Path) -> Read:
    """Raises BadSettings."""
    try:
        return parse_security(read_private(path).decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise BadSettings(f"{path} is not UTF-8 text: bad byte at position {error.start}") from None


def parse_security(text: str, origin: str) -> Read:
    """``origin`` names the file in sentences. Raises BadSettings."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError of its own
        raise BadSettings(f"{origin} is not valid TOML: {error}") from None
    _check_keys(table, ("principals",), origin)
    named = table.get("principals", {})
    if not isinstance(named, dict):
        raise BadSettings(f"{origin}: principals must be tables, such as [principals.orders-service]")
    principals: dict[str, Principal] = {}
    credentials: dict[bytes, Credential] = {}
    warnings: list[str] = []
    for name, row in named.items():
        where = f"{origin}: principal {name!r}"
        if not NAME.fullmatch(name):
            raise BadSettings(f"{where} is no name: letters, digits, . _ and -, at most 100")
        if not isinstance(row, dict):
            raise BadSettings(f"{where} must be a table, such as [principals.orders-service]")
        _check_keys(row, _KEYS, where)
        principals[name] = _principal(name, row, where)
        for digest, credential in _tokens(name, row.get("tokens", []), where):
            if digest in credentials:
                other = credentials[digest].principal
                raise BadSettings(f"{where} has a token that {other!r} has as well; a token is one principal's")
            credentials[digest] = credential
        warnings += _senseless(principals[name], where)
    _check_identities(principals, origin)
    warnings += _lacking(principals, origin)
    return Read(Policy(principals, credentials), warnings)


def _check_keys(table: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    allowed = list(allowed)
    for key in table:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(allowed)}"
            raise BadSettings(f"{where}: unknown key {key!r}; {hint}")


def _texts(row: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadSettings(f"{where}: {key} = {_shown(value)} is not allowed; it must be a list of texts")
    return value


def _principal(name: str, row: Mapping[str, Any], where: str) -> Principal:
    roles: set[Role] = set()
    broker_id: int | None = None
    for text in _texts(row, "roles", where):
        peer = _PEER.fullmatch(text)
        if peer is not None:
            if broker_id is not None or int(peer[1]) > 2**31 - 1:
                raise BadSettings(
                    f"{where}: role {text!r} is not allowed; a principal is one broker, of a number to 2^31-1"
                )
            roles.add(Role.PEER)
            broker_id = int(peer[1])
        elif text in (Role.ADMIN, Role.METRICS, Role.CONTROLLER):
            roles.add(Role(text))
        else:
            raise BadSettings(
                f"{where}: there is no role {text!r}; allowed: admin, metrics, controller, peer:N (N a broker id)"
            )
    rules = tuple(parse_rule(text, where) for text in _texts(row, "allow", where))
    quota = Quota(_number(row, "requests_per_second", where), _number(row, "bytes_per_second", where))
    return Principal(name, frozenset(roles), rules, broker_id, quota)


def parse_rule(text: str, where: str) -> Rule:
    """``read orders.*``. Raises BadSettings."""
    operation, _, name = text.strip().partition(" ")
    name = name.strip()
    if operation not in _RULES:
        raise BadSettings(
            f"{where}: rule {text!r} is not allowed; write read, write or alter and a topic, group and a group, or describe"
        )
    if (operation in RESOURCES) != bool(name):
        what = f"a {RESOURCES[Operation(operation)]}" if operation in RESOURCES else "nothing"
        raise BadSettings(f"{where}: rule {text!r} is not allowed; behind {operation} comes {what}")
    if "*" in name[:-1]:
        raise BadSettings(f"{where}: rule {text!r} is not allowed; a * stands at the end, as in orders.*")
    return Rule(Operation(operation), name)


def _number(row: Mapping[str, Any], key: str, where: str) -> int:
    value = row.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= QUOTA_MAX:
        raise BadSettings(
            f"{where}: {key} = {_shown(value)} is not allowed; it must be a whole number from 0 (no bound) to 2^53"
        )
    return value


def _shown(value: object) -> str:
    try:
        return repr(value)[:SHOWN_MAX]
    except ValueError:
        return "a number of thousands of digits"


def _tokens(name: str, rows: object, where: str) -> Iterable[tuple[bytes, Credential]]:
    if not isinstance(rows, list):
        raise BadSettings(f"{where}: tokens must be a list of tables with sha256, and not_after if they expire")
    for row in rows:
        if not isinstance(row, dict):
            raise BadSettings(f"{where}: a token must be a table with sha256, and not_after if it expires")
        _check_keys(row, _TOKEN_KEYS, where)
        digest = row.get("sha256")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise BadSettings(f"{where}: a token's sha256 must be 64 digits 0-9a-f; `minilog token create` makes one")
        yield bytes.fromhex(digest), Credential(name, _not_after(row.get("not_after"), where))


def _not_after(value: object, where: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise BadSettings(
            f"{where}: not_after = {_shown(value)} is not allowed; write a time such as 2027-01-31T12:00:00Z"
        )
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    try:
        return int(value.timestamp() * 1000)
    except (OverflowError, ValueError):
        raise BadSettings(f"{where}: not_after = {value} is no time that can be reached") from None


def _senseless(principal: Principal, where: str) -> Iterable[str]:
    for place, rule in enumerate(principal.rules):
        if rule.name and (not _RESOURCE.fullmatch(rule.name) or rule.name in (".", "..")):
            yield f"{where}: rule {str(rule)!r} can never match: no topic or group is called so"
        wider = [
            other
            for at, other in enumerate(principal.rules)
            if at != place
            and other.operation is rule.operation
            and _covers_all(other, rule)
            and (other != rule or at < place)
        ]
        if wider:
            yield f"{where}: rule {str(rule)!r} adds nothing: {str(wider[0])!r} is there"
    if not principal.roles and not principal.rules:
        yield f"{where} may do nothing: it has neither allow nor roles"


def _covers_all(wide: Rule, narrow: Rule) -> bool:
    return wide.covers(narrow.name.removesuffix("*")) if wide.name.endswith("*") else wide.name == narrow.name


def _check_identities(principals: Mapping[str, Principal], origin: str) -> None:
    brokers: dict[int, str] = {}
    for name, principal in principals.items():
        if principal.broker_id is None:
            continue
        other = brokers.setdefault(principal.broker_id, name)
        if other != name:
            raise BadSettings(
                f"{origin}: {other!r} and {name!r} are both peer:{principal.broker_id}; a broker is one principal"
            )


def _lacking(principals: Mapping[str, Principal], origin: str) -> Iterable[str]:
    held = {role for principal in principals.values() for role in principal.roles}
    if not principals:
        yield f"{origin} names nobody, so nobody is let in; `minilog token create` adds a principal"
        return
    for role, what in ((Role.PEER, "broker (peer:N)"), (Role.CONTROLLER, "controller"), (Role.ADMIN, "admin")):
        if role not in held:
            yield f"{origin}: nobody is {what}"
