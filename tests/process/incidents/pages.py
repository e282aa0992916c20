"""Who is paged: an Alertmanager with ``config/alertmanager.yml``, and the telephone it rings."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from tests.process.rig.prometheus import ROOT, free_port, wait_ready

EXAMPLE_RECEIVER: Final = "http://127.0.0.1:9099/page"


def unavailable() -> str | None:
    found = shutil.which("prometheus-alertmanager")
    return None if found else "prometheus-alertmanager not installed (Debian: apt-get install prometheus-alertmanager)"


@dataclass(frozen=True)
class Page:
    at_s: float
    alert: str
    severity: str
    summary: str


@dataclass
class Pages:
    """What was rung for, each alert once however often it is repeated."""

    address: str = ""
    rung: list[Page] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        for alert in json.loads(body)["alerts"]:
            labels, now_s = alert["labels"], time.time()
            page = Page(now_s, labels["alertname"], labels["severity"], alert["annotations"]["summary"])
            known = {(seen.alert, seen.summary) for seen in self.rung}
            if alert["status"] == "firing" and (page.alert, page.summary) not in known:
                self.rung.append(page)

    def first(self, alert: str) -> Page | None:
        return next((page for page in self.rung if page.alert == alert), None)


@contextlib.contextmanager
def alertmanager(folder: Path) -> Iterator[Pages]:
    pages = Pages()
    with _telephone(pages) as receiver:
        text = (ROOT / "config" / "alertmanager.yml").read_text()
        assert EXAMPLE_RECEIVER in text
        (folder / "alertmanager.yml").write_text(text.replace(EXAMPLE_RECEIVER, receiver))
        pages.address = f"127.0.0.1:{free_port()}"
        command = [
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={pages.address}",
            "--cluster.listen-address=",
        ]
        with (folder / "alertmanager.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_ready(f"http://{pages.address}", process)
            yield pages
        finally:
            process.terminate()
            process.wait(10)


@contextlib.contextmanager
def _telephone(pages: Pages) -> Iterator[str]:
    class Ring(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            pages.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the pages are the log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Ring)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/page"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
