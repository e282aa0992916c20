"""Every nemesis by name: what campaigns choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.process.nemesis import clocks, copies, disks, lacks, levers, networks, processes
from tests.process.nemesis.nemesis import ENTERED, Nemesis

KINDS: Final = (processes, networks, disks, copies, clocks, lacks, levers)
CATALOGUE: Final[Mapping[str, Nemesis]] = ENTERED
