"""``minilog receipt check``: receipts as they come from produce routes, and one by hand."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from minilog.cli.cluster import receipt
from minilog.cli.main import run
from minilog.cli.output import CliError
from minilog.wire.json.receipt_answers import CheckedReceipt, CheckedReceipts, ReceiptToCheck


def on_stdin(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def answering(monkeypatch: pytest.MonkeyPatch, *statuses: str) -> list[Any]:
    asked: list[Any] = []

    def ask(self: object, route: str, cls: type, body: Any) -> CheckedReceipts:
        asked.append(body["receipts"])
        return CheckedReceipts([CheckedReceipt("t", 0, 1, 2, 3, status, "so") for status in statuses])

    monkeypatch.setattr("minilog.cli.api.Api.ask", ask)
    return asked


def test_receipts_of_the_produce_routes_are_read_with_all_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    line = b'{"topic":"t","partition":1,"offset":5,"end_offset":8,"leader_epoch":2,"timestamp":null,"acks":"all","isr":[1]}'
    on_stdin(monkeypatch, b"\xef\xbb\xbf" + line + b"\n\n" + line + b"\n")
    assert receipt._asked(None, None, None, None) == [ReceiptToCheck("t", 1, 5, 2, 8)] * 2


@pytest.mark.parametrize(
    "line", [b"5", b"{", b'{"topic": "t"}', b'{"topic":"t","partition":0,"offset":-1,"leader_epoch":0}']
)
def test_what_is_none_names_its_line(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    on_stdin(monkeypatch, b"\n" + line)
    with pytest.raises(CliError, match="line 2 is no receipt"):
        receipt._asked(None, None, None, None)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["committed"], 0), (["at_risk", "gone"], 0), (["committed", "lost", "unknown"], 1), (["unknown"], 3)],
)
def test_the_exit_code_is_that_of_the_worst(statuses: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, *statuses)
    assert (
        run(["receipt", "check", "-t", "t", "-p", "0", "--offset", "1", "--epoch", "3", "-u", "http://127.0.0.1:1"])
        == code
    )
    assert asked == [[ReceiptToCheck("t", 0, 1, 3)]]


def test_half_a_receipt_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["receipt", "check", "-t", "t", "-u", "http://127.0.0.1:1"]) == 2
    assert "-t TOPIC -p PARTITION --offset N --epoch N" in capsys.readouterr().err
