"""``minilog config files``: the files that an operator begins with, copied into a folder of their
own.

The top level of the repository holds them, in ``config/`` and ``grafana/``. The build copies them
into the wheel (``setup.py``). An editable install finds them in the checkout.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

import typer

from minilog.cli.output import CliError, Column, Format, OutputOption, note, show_rows

FILES: Final = {
    "config/broker.toml": "every setting of a broker, with its default",
    "config/controller.toml": "every setting of the controller",
    "config/prometheus.yml": "Prometheus: what to scrape",
    "config/prometheus-secured.yml": "Prometheus: the same where there is a security file",
    "config/alerts.yml": "Prometheus: alert rules with runbooks",
    "config/alertmanager.yml": "Alertmanager: one page for what belongs together",
    "config/systemd/minilog-broker@.service": "systemd: a broker, by its number",
    "config/systemd/minilog-controller.service": "systemd: the controller",
    "config/container/Containerfile": "an image, for podman or docker",
    "config/kubernetes/minilog.yml": "Kubernetes: a controller and three brokers",
    "grafana/dashboards/cluster.json": "Grafana: the dashboard Cluster & ISR",
    "grafana/dashboards/durability.json": "Grafana: the dashboard Durability",
    "grafana/dashboards/lag.json": "Grafana: the dashboard Lag",
    "grafana/provisioning/dashboards/minilog.yml": "Grafana: where the dashboards lie",
    "grafana/provisioning/datasources/prometheus.yml": "Grafana: where Prometheus is",
}
"""The path in the repository, and what the file is for."""

COLUMNS: Final = [Column("file", "FILE"), Column("purpose", "WHAT IT IS")]


def write_files(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them; made if it is not there.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    output: OutputOption = Format.table,
) -> None:
    """Write example settings, Prometheus rules and Grafana dashboards into a folder."""
    targets = {name: folder / name.removeprefix("config/") for name in FILES}
    there = [path for path in targets.values() if path.exists()]
    if there and not force:
        raise CliError(f"{there[0]} is there already, so nothing was written; --force overwrites")
    root = source()
    rows: list[dict[str, str]] = []
    for name, path in targets.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((root / name).read_bytes())
        except OSError as error:
            raise CliError(f"{path} cannot be written: {error.strerror}") from None
        rows.append({"file": str(path.relative_to(folder)), "purpose": FILES[name]})
    show_rows(rows, COLUMNS, output)
    note(f"{len(rows)} files written to {folder}")


def source() -> Path:
    """The folder that holds ``config/`` and ``grafana/``: inside the package in a wheel, above it
    in a checkout."""
    package = Path(str(files("minilog")))
    packed = package / "files"
    return packed if packed.is_dir() else package.parent
