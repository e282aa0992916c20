"""python -m grafana: write the dashboards' JSON anew."""

from __future__ import annotations

from pathlib import Path

from grafana import cluster, durability, lag
from grafana.panels import as_json

FOLDER = Path(__file__).parent / "dashboards"


def built() -> dict[Path, str]:
    return {
        FOLDER / f"{name}.json": as_json(board.build())
        for name, board in {"cluster": cluster, "durability": durability, "lag": lag}.items()
    }


if __name__ == "__main__":
    for path, text in built().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path)
