"""python -m grafana: write the dashboards' JSON anew."""

from __future__ import annotations

from pathlib import Path

from grafana import cluster, lag
from grafana.panels import as_json

FOLDER = Path(__file__).parent / "dashboards"


def built() -> dict[Path, str]:
    return {FOLDER / "cluster.json": as_json(cluster.build()), FOLDER / "lag.json": as_json(lag.build())}


if __name__ == "__main__":
    for path, text in built().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        print(path)
