"""Whether settings can work together, and whether what they name can be reached or written to.

A value by itself is checked where it is read (``settings.py``). Here are the rules about two of
them, about addresses and about folders. Every refusal names the sources, the keys, the values and
what is allowed.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from minilog.config import (
    CONTROLLER_PATIENCE_MS,
    URL_CHARS_MAX,
    BrokerSettings,
    ControllerSettings,
    Limits,
    cors_origins,
    url_fault,
    without_secrets,
)
from minilog.errors import RefusesToStart

ADDRESSES_ANY: Final = frozenset({"", "0.0.0.0", "::", "*"})
Origins = Mapping[str, str]

_UNEXPANDED: Final = re.compile(r"^~|/~(/|$)|\$[A-Za-z_{(]")
"""What a shell would have made something else of. Nothing here does."""
_ETCD_URL: Final = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_ETCD_PREFIX: Final = re.compile(r"/([A-Za-z0-9._-]+/)+")


class BadSettings(RefusesToStart):
    """The sentence names source, key, value and what is allowed."""


def check_broker(settings: BrokerSettings, origins: Origins) -> None:
    _check_both(settings, origins)
    _check_order(settings, origins, "drain_timeout_ms", "shutdown_timeout_ms")
    _check_order(settings, origins, "group_session_timeout_ms_min", "group_session_timeout_ms_max")
    _check_half(settings, origins, "replica_fetch_wait_ms", "peer_timeout_ms", "idle followers would time out")
    _check_half(settings, origins, "replica_fetch_wait_ms", "replica_lag_max_ms", "idle followers would leave the ISR")
    _check_url("controller_url", settings.controller_url, origins)
    for url in settings.controllers:
        _check_url("controller_urls" if settings.controller_urls else "controller_url", url, origins)
    try:
        cors_origins(settings.cors_origins)
    except ValueError as error:
        raise BadSettings(f"{origins['cors_origins']}: cors_origins: {error}") from None
    if settings.advertised_url:
        _check_url("advertised_url", settings.advertised_url, origins)
    elif settings.host in ADDRESSES_ANY:
        raise BadSettings(
            f"{origins['host']}: host = {settings.host!r} listens on every address, so advertised_url must say "
            "how clients reach this broker, for example http://broker-1.example.org:8082"
        )


def check_reach(settings: BrokerSettings, origins: Origins) -> None:
    """The controller of another process must be able to reach this broker, and have its place to
    itself."""
    key, host, port = "host", settings.host, settings.port
    if settings.advertised_url:
        told = urlsplit(settings.advertised_url)
        key, host, port = "advertised_url", told.hostname or "", told.port or 80
    for url in settings.controllers:
        _check_reach(settings, origins, key, host, port, url)


def _check_reach(settings: BrokerSettings, origins: Origins, key: str, host: str, port: int, url: str) -> None:
    named = "controller_urls" if settings.controller_urls else "controller_url"
    controller = urlsplit(url)
    there = controller.hostname or ""
    if port == (controller.port or 80) and (host == there or (_is_loopback(host) and _is_loopback(there))):
        raise BadSettings(
            f"{_told(settings, origins, key)} and {_told(settings, origins, named)} are one place: "
            f"a broker and a controller cannot share port {port} of an address"
        )
    if _is_loopback(host) and not _is_loopback(there):
        raise BadSettings(
            f"{_told(settings, origins, key)} is this machine's own address, which the controller of "
            f"{_told(settings, origins, named)} cannot reach; set advertised_url to the http://host:port "
            "that others reach this broker by (and host to an address that they can reach), or name a controller on "
            "this machine by http://127.0.0.1:port"
        )


def check_controller(settings: ControllerSettings, origins: Origins) -> None:
    _check_both(settings, origins)
    late_ms = settings.heartbeat_interval_ms + settings.probe_after_ms
    if late_ms >= settings.session_timeout_ms:
        raise BadSettings(
            f"{_told(settings, origins, 'heartbeat_interval_ms')} and {_told(settings, origins, 'probe_after_ms')} must "
            f"together be less than {_told(settings, origins, 'session_timeout_ms')}: a broker is probed before its "
            "session is over, or never"
        )
    if settings.topic_create_wait_ms * 2 > CONTROLLER_PATIENCE_MS:
        raise BadSettings(
            f"{_told(settings, origins, 'topic_create_wait_ms')} must be at most {CONTROLLER_PATIENCE_MS // 2}: brokers "
            f"wait {CONTROLLER_PATIENCE_MS} ms for the answer"
        )
    _check_order(settings, origins, "default_partitions", "partitions_max")
    _check_order(settings, origins, "groups_partitions", "partitions_max")
    if settings.journal == "etcd":
        _check_etcd(settings, origins)


def _check_etcd(settings: ControllerSettings, origins: Origins) -> None:
    urls = settings.etcd_url_list
    for url in urls or [""]:
        if not _ETCD_URL.fullmatch(url):
            raise BadSettings(
                f"{origins['etcd_urls']}: etcd_urls: {url!r} is not allowed: write http://host:port or https://host:port "
                "for each member, separated by commas; user and password have settings of their own"
            )
    if len({urlsplit(url).scheme for url in urls}) > 1:
        raise BadSettings(f"{origins['etcd_urls']}: etcd_urls mixes http and https; write one of them for all members")
    if not _ETCD_PREFIX.fullmatch(settings.etcd_prefix):
        raise BadSettings(
            f"{origins['etcd_prefix']}: etcd_prefix = {settings.etcd_prefix!r} is not allowed: it begins and ends with a "
            "slash, and between slashes are letters, digits, dots, - and _"
        )
    for one, other in (("etcd_user", "etcd_password_file"), ("etcd_cert_file", "etcd_key_file")):
        if bool(getattr(settings, one)) != bool(getattr(settings, other)):
            raise BadSettings(f"{_told(settings, origins, one)} goes with {_told(settings, origins, other)}; set both")
    if settings.advertised_url:
        _check_url("advertised_url", settings.advertised_url, origins)
    elif settings.host in ADDRESSES_ANY:
        raise BadSettings(
            f"{origins['host']}: host = {settings.host!r} listens on every address, so advertised_url must say "
            "how brokers and the other controllers reach this one, for example http://controller-1.example.org:9093"
        )


def check_apart(broker: BrokerSettings, of_broker: Origins, controller: ControllerSettings, of_other: Origins) -> None:
    """Two that run in one process keep their data in different folders, and have one event loop."""
    if broker.event_loop != controller.event_loop:
        raise BadSettings(
            f"broker.event_loop = {broker.event_loop!r} ({of_broker['event_loop']}) and controller.event_loop = "
            f"{controller.event_loop!r} ({of_other['event_loop']}) differ; both run in this process, so set event_loop alone"
        )
    if os.path.realpath(broker.data_dir) == os.path.realpath(controller.data_dir):
        raise BadSettings(
            f"broker.data_dir = {broker.data_dir!r} ({of_broker['data_dir']}) and controller.data_dir = "
            f"{controller.data_dir!r} ({of_other['data_dir']}) are the same folder; each needs one of its own"
        )


def _check_both(settings: BrokerSettings | ControllerSettings, origins: Origins) -> None:
    _check_folder(settings.data_dir, origins["data_dir"])
    _check_security(settings, origins)
    _check_half(
        settings, origins, "heartbeat_interval_ms", "session_timeout_ms", "a late heartbeat would end a session"
    )
    for small, large in (
        ("batch_bytes_max", "request_bytes_max"),
        ("request_bytes_max", "inflight_bytes_max"),
        ("fetch_bytes_max", "inflight_bytes_max"),
    ):
        _check_order(settings.limits, origins, small, large, "limits.")


def _check_security(settings: BrokerSettings | ControllerSettings, origins: Origins) -> None:
    for one, other in (("tls_cert_file", "tls_key_file"), ("tls_key_file", "tls_cert_file")):
        if getattr(settings, one) and not getattr(settings, other):
            raise BadSettings(f"{_told(settings, origins, one)} needs {other} as well")
    if settings.security_file and settings.insecure:
        raise BadSettings(
            f"{_told(settings, origins, 'insecure')} and {_told(settings, origins, 'security_file')} contradict each "
            "other; leave one out"
        )
    for url in getattr(settings, "controllers", []):
        if settings.token_file and settings.tokens_without_tls != "always" and _is_in_plain_sight(url):
            raise BadSettings(
                f"token_file is shown to the controller at {url}, without TLS, where others can read it on the way; "
                'write https://, or say tokens_without_tls = "always" on a network that is yours alone'
            )
    if settings.peer_tls == "required" and not (
        settings.security_file and settings.tls_cert_file and settings.tls_ca_file
    ):
        raise BadSettings(
            f"{_told(settings, origins, 'peer_tls')} needs security_file, tls_cert_file, tls_key_file and tls_ca_file"
        )


def _is_in_plain_sight(url: str) -> bool:
    """What is sent there leaves this machine, and is not encrypted."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and not _is_loopback(parts.hostname or "")
    except ValueError:
        return False  # it is refused as an address


def _told(settings: object, origins: Origins, key: str, prefix: str = "") -> str:
    return f"{prefix}{key} = {getattr(settings, key)!r} ({origins[prefix + key]})"


def _check_order(
    settings: BrokerSettings | ControllerSettings | Limits, origins: Origins, small: str, large: str, prefix: str = ""
) -> None:
    if getattr(settings, small) > getattr(settings, large):
        raise BadSettings(
            f"{_told(settings, origins, small, prefix)} must not be larger than {_told(settings, origins, large, prefix)}"
        )


def _check_half(
    settings: BrokerSettings | ControllerSettings, origins: Origins, short: str, long: str, else_: str
) -> None:
    """Room for the way there and back, and for a machine that is busy."""
    if getattr(settings, short) * 2 > getattr(settings, long):
        raise BadSettings(
            f"{_told(settings, origins, short)} must be at most half of {_told(settings, origins, long)}: else {else_}"
        )


def _check_folder(folder: str, origin: str) -> None:
    if not folder:
        raise BadSettings(f"{origin}: data_dir is empty; name the folder this process keeps its data in")
    if "\0" in folder:
        raise BadSettings(f"{origin}: data_dir = {folder!r} is not allowed: no file name holds a NUL character")
    if _UNEXPANDED.search(folder):
        raise BadSettings(
            f"{origin}: data_dir = {folder!r} is not allowed: ~ and $NAME are not expanded here; write the path in full"
        )


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower() == "localhost" or host.rstrip(".").lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reason(error: ValueError) -> str:
    return "it is no IPv6 address" if isinstance(error, ipaddress.AddressValueError) else str(error)


def _check_url(key: str, url: str, origins: Origins) -> None:
    fault = url_fault(url)
    if fault is not None:
        raise BadSettings(f"{origins[key]}: {key} = {without_secrets(url[:URL_CHARS_MAX])!r} is not allowed: {fault}")
