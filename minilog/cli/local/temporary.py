"""A cluster of one's own for the length of a ``with``: started in a temporary folder, gone
afterwards in every case."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from minilog.cli.access import adopted
from minilog.cli.local.cluster import DevCluster


@contextlib.contextmanager
def temporary_cluster(
    brokers: int = 3,
    overrides: Sequence[str] = (),
    keep: bool = False,
    prefix: str = "minilog-",
    secure: bool = False,
) -> Iterator[DevCluster]:
    """Running and ready, on free ports. SIGTERM and SIGHUP end the ``with`` as Ctrl-C does. After a
    SIGKILL of this process the cluster's processes stop by themselves. ``keep`` leaves the folder
    with data and logs. Of a ``secure`` one this process is the administrator meanwhile."""
    with _signals_interrupt():
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            cluster = DevCluster.create(folder, brokers, port=0, controller_port=0, overrides=overrides, secure=secure)
            try:
                cluster.start_all(exit_with_parent=True)
                with adopted({} if cluster.keyring is None else cluster.keyring.environment):
                    yield cluster
            finally:
                cluster.kill_all()
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """All of them become a SIGINT, which an event loop knows how to take. A background job may have
    it ignored."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
