"""What is made of skopeo's last words. What skopeo does is in tests/integration/test_skopeo.py."""

from pathlib import Path

import pytest

from ecr_relay.errors import Permanent, Transient
from ecr_relay.registries import Login
from ecr_relay.skopeo import MESSAGE_LIMIT, Skopeo, _reason, _shortened

LINE = 'time="2026-11-24T04:22:35Z" level=fatal msg='


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (LINE + '"writing manifest: denied"\n', "writing manifest: denied"),
        (LINE + r'"Get \"http://a/v2/\": a \\ and\na\ttab, \u00e9 \xff"', 'Get "http://a/v2/": a \\ and\na\ttab, é ÿ'),
        (LINE + "EOF\n", "EOF"),
        ('time="x" level=info msg="reconnecting"\n' + LINE + '"gone"\n', "gone"),
        ("panic: runtime error\n\ngoroutine 1 [running]:\nmain.main()\n\n", "main.main()"),
        ("", ""),
    ],
)
def test_the_reason_is_the_fatal_lines_message(output: str, reason: str) -> None:
    assert _reason(output) == reason


def test_a_long_reason_loses_its_middle() -> None:
    assert _shortened("one\n two") == "one two"
    short = _shortened("where " + "x" * 5000 + " why")
    assert len(short) == MESSAGE_LIMIT
    assert short.startswith("where ")
    assert short.endswith(" why")


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program that says on stderr what the file `words` holds, and fails."""
    program = tmp_path / "stand-in"
    program.write_text(f'#!/bin/sh\ncat {tmp_path}/words >&2\nexit "$(cat {tmp_path}/status)"\n')
    program.chmod(0o755)
    (tmp_path / "status").write_text("1")
    return program


def said(program: Path, words: str) -> Skopeo:
    (program.parent / "words").write_text(words)
    skopeo = Skopeo(program.parent / "work", executable=str(program))
    skopeo.login({"a.example": Login("relay", "hunter2"), "b.example": Login("nobody", "")})
    return skopeo


def test_secrets_are_not_told(stand_in: Path) -> None:
    words = (
        r'"reading blob: Get \"https://u:p@layers.example/x?X-Amz-Signature=abc&X-Amz-Security-Token=def\": '
        r'hunter2, Basic cmVsYXk6aHVudGVyMg=="'
    )
    with pytest.raises(Transient) as caught:
        said(stand_in, LINE + words).copy("a.example/app", "sha256:0", "b.example/app")
    assert str(caught.value) == 'reading blob: Get "https://***@layers.example/x?…": ***, Basic ***'


def test_much_output_is_no_trouble(stand_in: Path) -> None:
    noise = 'time="x" level=info msg="reconnecting"\n' * 100_000
    with pytest.raises(Permanent, match=r"^Source image rejected: no signature$"):
        said(stand_in, noise + LINE + '"Source image rejected: no signature"').copy("a/b", "sha256:0", "c/d")


@pytest.mark.parametrize(("status", "words"), [("2", ""), ("134", "\n \n")])
def test_no_words_at_all(status: str, words: str, stand_in: Path) -> None:
    (stand_in.parent / "status").write_text(status)
    with pytest.raises(Transient, match=f"^skopeo ended with exit status {status}$"):
        said(stand_in, words).copy("a/b", "sha256:0", "c/d")


def test_words_but_success(stand_in: Path) -> None:
    (stand_in.parent / "status").write_text("0")
    said(stand_in, 'level=warning msg="deprecated"').copy("a/b", "sha256:0", "c/d")
