"""One etcd for all tests of this room, each below a prefix of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minilog.cli.local.etcd import EtcdMember, start_etcd
from minilog.cli.local.ports import free_ports
from minilog.config import ControllerSettings
from tests.process.conftest import leave_out

Settings = Callable[..., ControllerSettings]


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    if shutil.which("etcd") is None:
        leave_out("etcd is not installed")
    member = EtcdMember(tmp_path_factory.mktemp("etcd"), 1, free_ports(2)[0])
    try:
        start_etcd([member])
        yield member
    finally:
        member.stop()


@pytest.fixture
def settings_of(etcd: EtcdMember, tmp_path: Path) -> Settings:
    prefix = f"/minilog/{tmp_path.name}/"

    def make(**changes: object) -> ControllerSettings:
        known = {"etcd_urls": etcd.url, "etcd_prefix": prefix, "journal": "etcd", **changes}
        return ControllerSettings(data_dir=str(tmp_path), **known)  # type: ignore[arg-type]

    return make
