"""DiskStore: the real storage on a simulated disk, with the life of the machine around it."""

from __future__ import annotations

from random import Random
from typing import Any

from minilog.storage.store import Store
from tests.sim.nodes.disk import SimDisk

DATA_DIR = "/data/broker"


class DiskStore:
    """Everything LogStore needs is the real Store's. ``start``, ``kill``, ``crash`` and ``wipe``
    are the machine's."""

    def __init__(self, broker_id: int) -> None:
        self.broker_id = broker_id
        self.disk = _disk()
        self.store: Store | None = None
        self.reboots_on_failure = 0.5
        """Probability that somebody restarts the machine after a failed sync."""
        self._boots = 1
        self._disks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def start(self) -> bool:
        self.store = Store(self.disk, DATA_DIR, self.broker_id, lambda: 0, self._make_id)
        clean = self.store.start(f"boot-{self._boots}")
        self.store.recover(lambda: None)
        return clean

    def remove_log(self, topic: str, partition: int) -> None:
        directory = f"{DATA_DIR}/{topic}-{partition}"
        for name in [*(f"{directory}/{name}" for name in self.disk.list(directory)), directory]:
            self.disk.remove(name)
        self.disk.fsync_dir(DATA_DIR)

    def _make_id(self) -> str:
        self._disks += 1
        return f"directory-{self.broker_id}-{self._disks}"

    def kill(self) -> None:
        self.disk.kill()

    def crash(self, rng: Random) -> None:
        self.disk.crash(rng)
        self._boots += 1

    def lose_cache(self, rng: Random) -> None:
        """A sync failed: the kernel may have dropped what was not on the disk."""
        if rng.random() < self.reboots_on_failure:
            self.crash(rng)
        else:
            self.disk.lose_pages(rng)

    def replace(self, disk: SimDisk | None = None, *, same_boot: bool = False) -> None:
        """Another disk in the same machine, empty unless it is a copy of one."""
        self.disk = _disk() if disk is None else disk.copy()
        self._boots += not same_boot


def _disk() -> SimDisk:
    disk = SimDisk()
    disk.mkdir("/data")
    disk.fsync_dir("/")
    return disk
