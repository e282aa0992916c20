"""Loading of settings: TOML file < ``MINILOG_*`` environment < command-line flags, with where each
value came from.

Variables that Kubernetes makes of a service called minilog are no settings (``service_links``).

All three sources speak of the same dotted keys: ``port``, ``limits.request_bytes_max``. A leading
``broker.`` or ``controller.`` names one process and wins over the bare key of the same source, so
one file (a ``[broker]`` and a ``[controller]`` table) or one environment can serve both. In the
environment a dot is written ``__``: ``MINILOG_LIMITS__REQUEST_BYTES_MAX``,
``MINILOG_CONTROLLER__PORT``. ``minilog serve`` runs both in one process: there a bare ``data_dir``
is the folder of both and a bare ``port`` the broker's (``load_both``).

Everything wrong is refused with one sentence that names the source, the key, the value and what is
allowed. What is refused is ``BadSettings``. A key that only the other role knows is ignored in a
shared source.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from minilog.config import BrokerSettings, ControllerSettings, Limits, ascii_host, ascii_url
from minilog.settings_checks import ADDRESSES_ANY as ADDRESSES_ANY
from minilog.settings_checks import BadSettings as BadSettings
from minilog.settings_checks import check_apart, check_broker, check_controller, check_reach, reason

Role = Literal["broker", "controller"]
ROLES: tuple[Role, Role] = ("broker", "controller")
SHARED_KEYS = frozenset(
    {"session_timeout_ms", "heartbeat_interval_ms", "peer_timeout_ms", "security_file", "insecure", "host_names"}
    | {"tls_ca_file", "peer_tls", "tokens_without_tls", "failed_logins_per_minute_max", "event_loop"}
)
"""Both roles have these and want the same value, so a bare key sets both in one go (``assign``)."""
ENVIRONMENT_OTHER = frozenset(
    {
        "MINILOG_URL",
        "MINILOG_KEY_FILE",
        "MINILOG_CA_FILE",
        "MINILOG_CERT_FILE",
        "MINILOG_DEBUG",
        "MINILOG_PURE",
        "MINILOG_COMPILED",
        "MINILOG_SIM_SEEDS",
    }
)
"""``MINILOG_*`` variables that are not settings."""
SERVICE_LINK = re.compile(
    r"MINILOG_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
"""What Kubernetes puts into each pod for a service whose name begins with minilog."""
SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.*")
"""The value of its ``MINILOG_PORT``."""
FOLDERS: dict[Role, str] = {"broker": "broker-1", "controller": "controller"}
"""Within the folder of ``minilog serve``."""

S = TypeVar("S", BrokerSettings, ControllerSettings)


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """``origins`` has every dotted key of the settings. The value says ``default`` or names the
    source."""

    settings: S
    origins: dict[str, str]


@dataclass(frozen=True)
class Given:
    """One value as somebody wrote it. ``text`` values (environment, flags) are converted, TOML's
    are not."""

    value: Any
    origin: str
    text: bool


def load_broker(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Iterable[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> Loaded[BrokerSettings]:
    """``flags`` are ``key=value`` texts. ``defaults`` are weaker than every other source. Raises
    BadSettings."""
    loaded = _broker(_sources(file, environment, flags, defaults))
    check_reach(loaded.settings, loaded.origins)
    return loaded


def _broker(sources: Iterable[Mapping[str, Given]]) -> Loaded[BrokerSettings]:
    loaded = _load(BrokerSettings, "broker", sources)
    settings = loaded.settings
    check_broker(settings, loaded.origins)
    return Loaded(
        msgspec.structs.replace(
            settings,
            host=_host(loaded),
            controller_url=ascii_url(settings.controller_url),
            controller_urls=",".join(map(ascii_url, settings.controllers)) if settings.controller_urls else "",
            advertised_url=settings.advertised_url and ascii_url(settings.advertised_url),
        ),
        loaded.origins,
    )


def load_controller(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Iterable[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> Loaded[ControllerSettings]:
    """As ``load_broker``."""
    return _controller(_sources(file, environment, flags, defaults))


def _controller(sources: Iterable[Mapping[str, Given]]) -> Loaded[ControllerSettings]:
    loaded = _load(ControllerSettings, "controller", sources)
    check_controller(loaded.settings, loaded.origins)
    return Loaded(msgspec.structs.replace(loaded.settings, host=_host(loaded)), loaded.origins)


def load_both(
    file: Path | None,
    environment: Mapping[str, str],
    flags: Mapping[Role, Mapping[str, Given]],
    defaults: Mapping[str, str],
) -> tuple[Loaded[ControllerSettings], Loaded[BrokerSettings]]:
    """A controller and a broker for one process. What they cannot both mean by one bare key, in
    whatever source, means what ``serve`` means by its flag: ``data_dir`` the folder that holds the
    folders of both, ``port`` the broker's. The broker is told where the controller is, unless some
    source says otherwise. Raises BadSettings."""
    known = {key: Given(value, "default", text=True) for key, value in defaults.items()}
    shared = [known, _read_toml(file) if file else {}, _read_environment(environment)]

    def sources(role: Role) -> list[Mapping[str, Given]]:
        return [*(_in_one_process(source, role) for source in shared), flags[role]]

    controller = _controller(sources("controller"))
    at = Given(f"http://127.0.0.1:{controller.settings.port}", "default", text=True)
    broker = _broker([{"controller_url": at}, *sources("broker")])
    check_apart(broker.settings, broker.origins, controller.settings, controller.origins)
    return controller, broker


def _in_one_process(source: Mapping[str, Given], role: Role) -> dict[str, Given]:
    dealt = dict(source)
    folder, port = dealt.pop("data_dir", None), dealt.pop("port", None)
    if folder is not None:
        check_value(role, "data_dir", folder)
        path = f"{folder.value}/{FOLDERS[role]}" if folder.value else ""
        dealt.setdefault(f"{role}.data_dir", replace(folder, value=path))
    if port is not None and role == "broker":
        dealt.setdefault("broker.port", port)
    return dealt


def role_of(file: Path) -> Role:
    """Which process a settings file is for, judged by the keys only one of them knows. Raises
    BadSettings."""
    keys = {key.removeprefix("broker.").removeprefix("controller.") for key in _read_toml(file)}
    only = {role: keys & (_types(role).keys() - _types(other).keys()) for role, other in (ROLES, ROLES[::-1])}
    if bool(only["broker"]) == bool(only["controller"]):
        raise BadSettings(f"{file}: cannot tell whether this is for a broker or a controller; say it with --role")
    return "broker" if only["broker"] else "controller"


def assign(pairs: Iterable[str]) -> dict[Role, list[str]]:
    """Deal ``key=value`` flags meant for a whole cluster out to the roles.

    A bare key that one role alone knows, or that both want alike (SHARED_KEYS), needs no prefix.
    Any other must say ``broker.`` or ``controller.``. Raises BadSettings."""
    dealt: dict[Role, list[str]] = {"broker": [], "controller": []}
    for key, given in parse_flags(pairs).items():
        prefix, _, rest = key.partition(".")
        if prefix in ROLES:
            role: Role = "broker" if prefix == "broker" else "controller"
            check_value(role, rest, given)
            dealt[role].append(f"{rest}={given.value}")
            continue
        knowing = [role for role in ROLES if key in _types(role)]
        if not knowing:
            raise BadSettings(unknown_key(given.origin, key, all_keys()))
        if len(knowing) > 1 and key not in SHARED_KEYS:
            raise BadSettings(
                f"{given.origin}: {key} is a setting of brokers and of the controller; "
                f"write broker.{key}=... or controller.{key}=..."
            )
        for role in knowing:
            check_value(role, key, given)
            dealt[role].append(f"{key}={given.value}")
    return dealt


def parse_flags(pairs: Iterable[str]) -> dict[str, Given]:
    """``key=value`` strings of ``--set``. Raises BadSettings on a missing ``=`` or a key given
    twice."""
    given: dict[str, Given] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            raise BadSettings(f"--set {pair!r}: write key=value, for example --set session_timeout_ms=3000")
        if key in given:
            raise BadSettings(f"--set {key} is given twice ({given[key].value!r} and {value!r}); give it once")
        given[key] = Given(value.strip(), f"--set {key}", text=True)
    return given


def unknown_key(origin: str, key: str, allowed: Iterable[str]) -> str:
    known = sorted(allowed)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "`minilog config show` lists the keys"
    return f"{origin}: unknown key {key!r}; {hint}"


def all_keys() -> set[str]:
    return set(_types("broker")) | set(_types("controller"))


def check_value(role: Role, key: str, given: Given) -> Any:
    """The typed value of one setting. Raises BadSettings."""
    types = _types(role)
    if key not in types:
        raise BadSettings(unknown_key(given.origin, f"{role}.{key}", (f"{role}.{k}" for k in types)))
    try:
        return msgspec.convert(given.value, types[key], strict=not given.text)
    except msgspec.ValidationError:
        raise BadSettings(
            f"{given.origin}: {key} = {given.value!r} is not allowed; it must be {allowed(types[key])}"
        ) from None


def allowed(field_type: Any) -> str:
    """What a setting's type accepts, in words."""
    info = msgspec.inspect.type_info(field_type)
    match info:
        case msgspec.inspect.IntType(ge=low, le=high) if low is not None and high is not None:
            return f"a whole number from {low} to {high}"
        case msgspec.inspect.IntType():
            return "a whole number"
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.StrType(max_length=int(most)):
            return f"a text of at most {most} characters"
        case _:
            return "a text"


def _sources(
    file: Path | None,
    environment: Mapping[str, str] | None,
    flags: Iterable[str],
    defaults: Mapping[str, str] | None,
) -> list[dict[str, Given]]:
    """Weakest first."""
    weakest = {key: Given(value, "default", text=True) for key, value in (defaults or {}).items()}
    return [weakest, _read_toml(file) if file else {}, _read_environment(environment or {}), parse_flags(flags)]


def _load(cls: type[S], role: Role, sources: Iterable[Mapping[str, Given]]) -> Loaded[S]:
    values: dict[str, Any] = {}
    origins = dict.fromkeys(_types(role), "default")
    for source in sources:
        for key, given in _for_role(source, role).items():
            values[key] = check_value(role, key, given)
            origins[key] = given.origin
    missing = [name for name in cls.__struct_fields__ if name not in values and _required(cls, name)]
    if missing:
        raise BadSettings(
            f"the {role} needs {' and '.join(missing)}: set it in the --config file, with --set {missing[0]}=... "
            f"or with {variable(missing[0])}"
        )
    limits = {k.removeprefix("limits."): v for k, v in values.items() if k.startswith("limits.")}
    top = {k: v for k, v in values.items() if not k.startswith("limits.")}
    return Loaded(cls(**top, limits=Limits(**limits)), origins)


def _for_role(source: Mapping[str, Given], role: Role) -> dict[str, Given]:
    """The keys of one source that concern ``role``, prefixes removed. A prefixed key wins over a
    bare one."""
    types, everything = _types(role), all_keys()
    chosen: dict[str, Given] = {}
    for key, given in sorted(source.items(), key=lambda item: item[0].startswith(f"{role}.")):
        prefix, _, rest = key.partition(".")
        if prefix == role:
            chosen[rest] = given
        elif prefix in ROLES:
            check_value("controller" if prefix == "controller" else "broker", rest, given)
        elif key in types:
            chosen[key] = given
        elif key not in everything:
            raise BadSettings(unknown_key(given.origin, key, everything))
    return chosen


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return "MINILOG_" + key.replace(".", "__").upper()


def service_links(environment: Mapping[str, str]) -> list[str]:
    """The variables that Kubernetes makes of services. They are no settings, whatever they are
    called."""
    return sorted(
        name
        for name, value in environment.items()
        if SERVICE_LINK.fullmatch(name)
        or (name.startswith("MINILOG_") and name.endswith("_PORT") and SERVICE_URL.match(value))
    )


def _read_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    given = {}
    links = service_links(environment)
    for name, value in environment.items():
        if name.startswith("MINILOG_") and name not in ENVIRONMENT_OTHER and name not in links:
            key = name.removeprefix("MINILOG_").replace("__", ".").lower()
            given[key] = Given(value, f"environment variable {name}", text=True)
    return given


def _read_toml(file: Path) -> dict[str, Given]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BadSettings(f"{file} does not exist; `minilog config files DIR` writes commented examples") from None
    except OSError as error:
        raise BadSettings(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadSettings(f"{file} is not UTF-8 text: bad byte at position {error.start}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError of its own
        raise BadSettings(f"{file} is not valid TOML: {error}") from None
    return {key: Given(value, str(file), text=False) for key, value in _flatten("", table)}


def _flatten(prefix: str, table: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _types(role: Role) -> dict[str, Any]:
    cls = BrokerSettings if role == "broker" else ControllerSettings
    types: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        if field.name != "limits":
            types[field.name] = field.type
    for field in msgspec.structs.fields(Limits):
        types[f"limits.{field.name}"] = field.type
    return types


def _required(cls: type[msgspec.Struct], name: str) -> bool:
    return next(f.required for f in msgspec.structs.fields(cls) if f.name == name)


def _host(loaded: Loaded[S]) -> str:
    """``host`` in ASCII: it is listened on, and told to others where advertised_url is not set."""
    host = loaded.settings.host
    if host in ADDRESSES_ANY:
        return host
    try:
        return ascii_host(host)
    except ValueError as error:
        raise BadSettings(f"{loaded.origins['host']}: host = {host!r} is not allowed: {reason(error)}") from None
