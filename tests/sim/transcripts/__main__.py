"""python -m tests.sim.transcripts: show the transcripts. With --write, renew the files they are
compared with."""

from __future__ import annotations

from typing import Annotated

import typer

from tests.sim.transcripts.flows import DIRECTORY, FLOWS


def main(write: Annotated[bool, typer.Option("--write", help="Replace the files.")] = False) -> None:
    """Print every transcript, or write them."""
    for name, flow in FLOWS.items():
        text = flow()
        if write:
            (DIRECTORY / f"{name}.txt").write_text(text)
        else:
            print(text)


if __name__ == "__main__":
    typer.run(main)
