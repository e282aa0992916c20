"""Faults of several controllers and of their etcd. With one controller there are none of these."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.sim.cluster import SimCluster
from tests.sim.nodes.controller_node import ControllerNode
from tests.sim.nodes.etcd import ETCD_ID, EtcdWeather
from tests.sim.schedules.options import Options

Later = Callable[[int, str, Callable[[], None]], None]


class ControllerFaults:
    def __init__(self, cluster: SimCluster, options: Options, rng: Random, later: Later) -> None:
        self.cluster, self.options, self.rng, self._later = cluster, options, rng, later

    @property
    def kinds(self) -> list[tuple[str, float, Callable[[], None]]]:
        if self.cluster.etcd is None:
            return []
        return [
            ("standby kill", self.options.controller_kills, self._kill_standby),
            ("etcd outage", self.options.etcd_outages, self._stop_etcd),
            ("etcd cut", self.options.etcd_cuts, self._cut_etcd),
        ]

    def begin(self) -> None:
        etcd, options = self.cluster.etcd, self.options
        if etcd is not None:
            late_ms = options.late_ms
            etcd.weather = EtcdWeather(options.lost, options.request_twice, options.late, late_ms, options.delay_ms)
        for controller in self.cluster.controllers:
            controller.dies_in_commit = options.dies_in_commit

    def end(self) -> None:
        if self.cluster.etcd is not None:
            self.cluster.etcd.weather = EtcdWeather()
            self.cluster.etcd.is_up = True
        for controller in self.cluster.controllers:
            controller.dies_in_commit = 0.0

    def one(self) -> ControllerNode:
        """The one that decides more often than not."""
        return self.cluster.controller if self.rng.random() < 0.7 else self.rng.choice(self.cluster.controllers)

    def _kill_standby(self) -> None:
        node = self.rng.choice(self.cluster.controllers)
        node.kill()
        self._later(self._down_ms(), f"start {node.name}", node.start)

    def _stop_etcd(self) -> None:
        etcd = self.cluster.etcd
        assert etcd is not None
        etcd.is_up = False

        def back() -> None:
            etcd.is_up = True

        self._later(self._down_ms(), "etcd is back", back)

    def _cut_etcd(self) -> None:
        """One way or both, from one controller."""
        network, node = self.cluster.network, self.one()
        ways = self.rng.choice(
            ([(node.node_id, ETCD_ID)], [(ETCD_ID, node.node_id)], [(node.node_id, ETCD_ID), (ETCD_ID, node.node_id)])
        )
        network.cuts.update(ways)
        self._later(self._down_ms(), f"{node.name} reaches etcd", lambda: network.cuts.difference_update(ways))

    def _down_ms(self) -> int:
        return self.rng.randint(1, self.options.down_ms)
