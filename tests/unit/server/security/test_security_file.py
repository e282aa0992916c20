"""The security file: what is refused, and in which words; what is warned of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilog.security_file import parse_security, read_security
from minilog.settings_checks import BadSettings

TOKEN = f'tokens = [{{ sha256 = "{"a" * 64}" }}]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[principal.a]", "did you mean principals"),
        ("principals = 3", "must be tables"),
        ("[principals]\na = 3", "must be a table"),
        ('[principals."a b"]', "is no name"),
        ("[principals.a]\nallows = []", "did you mean allow"),
        ("[principals.a]\nallow = 'read x'", "must be a list of texts"),
        ("[principals.a]\nallow = ['delete x']", "rule 'delete x' is not allowed"),
        ("[principals.a]\nallow = ['read']", "behind read comes a topic"),
        ("[principals.a]\nallow = ['describe x']", "behind describe comes nothing"),
        ("[principals.a]\nallow = ['read a*b']", "a * stands at the end"),
        ("[principals.a]\nroles = ['root']", "there is no role 'root'"),
        ("[principals.a]\nroles = ['peer:x']", "there is no role"),
        ("[principals.a]\nroles = ['peer:1', 'peer:2']", "is one broker"),
        ("[principals.a]\nroles = ['peer:1']\n[principals.b]\nroles = ['peer:1']", "are both peer:1"),
        ("[principals.a]\ntokens = [{ sha256 = 'abc' }]", "64 digits"),
        ("[principals.a]\ntokens = [{ token = 'abc' }]", "unknown key 'token'"),
        (f"[principals.a]\ntokens = [{{ sha256 = '{'a' * 64}', not_after = 'soon' }}]", "write a time"),
        (f"[principals.a]\n{TOKEN}[principals.b]\n{TOKEN}", "a token is one principal's"),
        ("[principals.a]\nrequests_per_second = -1", "whole number"),
        ("[principals.a]\nbytes_per_second = true", "whole number"),
        ("[principals.a\n", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(BadSettings) as caught:
        parse_security(text, "security.toml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("security.toml")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("allow = ['read x y']", "can never match"),
        ("allow = ['read ..']", "can never match"),
        ("allow = ['read a.*', 'read a.b']", "adds nothing"),
        ("allow = ['read a', 'read a']", "adds nothing"),
        ("", "may do nothing"),
    ],
)
def test_what_means_nothing_is_warned_of(row: str, said: str) -> None:
    warnings = parse_security(f"[principals.a]\n{row}", "f").warnings
    assert [line for line in warnings if said in line]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_file_that_others_may_use_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "security.toml"
    path.write_text("")
    path.chmod(mode)
    with pytest.raises(BadSettings, match=f"mode 0{mode:o}.*chmod 600"):
        read_security(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "security.toml"
    path.write_text("[principals.a]\nroles = ['admin']")
    path.chmod(mode)
    assert list(read_security(path).policy.principals) == ["a"]


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing"):
        with pytest.raises(BadSettings):
            read_security(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "binary").chmod(0o600)
    with pytest.raises(BadSettings, match="not UTF-8"):
        read_security(tmp_path / "binary")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_security(text, "f")
    except BadSettings:
        return
