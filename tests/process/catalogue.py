"""Every nemesis by name: what campaigns choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.process import nemesis_disk, nemesis_network, nemesis_process
from tests.process.nemesis import ENTERED, Nemesis

KINDS: Final = (nemesis_process, nemesis_network, nemesis_disk)
CATALOGUE: Final[Mapping[str, Nemesis]] = ENTERED
