"""A command that is answered by something that is no minilog says so: no sentence of a library, and
never that it is done."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from minilog.cli.main import run
from minilog.cli.output import ExitCode


class Portal(http.server.BaseHTTPRequestHandler):
    """As the login page of a proxy: 200 to everything."""

    def do_GET(self) -> None:
        body = b"<html>please log in</html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "words", [["topic", "list"], ["topic", "create", "x"], ["group", "list"], ["topic", "delete", "x", "--yes"]]
)
def test_who_is_no_minilog_is_told_so(url: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = run([*words, "--url", url])
    told = capsys.readouterr()
    assert "no minilog broker" in told.err, told.err
    assert "text/html" in told.err
    assert code == ExitCode.UNREACHABLE, told.out + told.err
