"""The token is a client's to keep: where it goes, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilog.errors import InvalidRequest
from minilog_client.credential import Credential, Files

TOKEN = "mlt_" + "a" * 43


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "t"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize(
    "url",
    ["https://broker-1:8082", "https://10.0.0.1", "http://127.0.0.1:8082", "http://[::1]:1", "http://localhost:1"],
)
def test_it_goes_where_nobody_else_reads_it(token_file: str, url: str) -> None:
    assert Credential(Files(token_file)).headers(url) == {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    "url", ["http://broker-1:8082", "http://10.0.0.1:1", "http://[fe80::1]:1", "http://localhost.evil:1"]
)
def test_it_goes_nowhere_else_unless_somebody_says_so(token_file: str, url: str) -> None:
    with pytest.raises(InvalidRequest, match="write https://") as refused:
        Credential(Files(token_file)).headers(url)
    assert TOKEN not in refused.value.detail
    assert Credential(Files(token_file, token_without_tls=True)).headers(url)
    assert Credential(Files()).headers(url) == {}
