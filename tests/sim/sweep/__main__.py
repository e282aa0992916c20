"""python -m tests.sim.sweep"""

from __future__ import annotations

import typer

from tests.sim.sweep.sweep import main

typer.run(main)
