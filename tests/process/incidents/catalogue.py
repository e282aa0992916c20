"""All incidents by their names, in the order of the table."""

from __future__ import annotations

from tests.process.incidents import cuts, deaths, disks, strains
from tests.process.incidents.incident import ENTERED

MODULES = (deaths, cuts, disks, strains)
CATALOGUE = ENTERED
