"""Every command, whatever happens to it: an exit status, a sentence, and never a traceback.

`SAMPLES` is checked against the command tree, so a new command comes under all of this or fails here.
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, NoRegionError

from ecr_relay.cli import app, reference
from ecr_relay.config import RelayConfig
from ecr_relay.errors import Transient
from ecr_relay.operate import wait as waiting
from tests.unit.conftest import CONFIG
from tests.unit.office import LOG_GROUP, Office, opened, refused

SAMPLES: dict[str, list[str]] = {
    "config check": ["relay.example.toml"],
    "config push": ["relay.example.toml", "--dry-run"],
    "config show": [],
    "copy": ["team/app:1.0"],
    "dlq list": [],
    "dlq purge": ["--all", "--yes"],
    "dlq redrive": ["--all"],
    "dlq show": [""],
    "doctor": [],
    "explain": ["team/app:1.0"],
    "images": [],
    "local up": [],
    "logs": ["team/app:1.0"],
    "pause": [],
    "resume": [],
    "status": [],
    "sync": [],
    "verify": [],
    "wait": ["team/app:1.0", "--destination", "west", "--timeout", "5"],
}
OFFLINE = ("config check", "local up")
"""These ask nothing of AWS."""
REMOTE = [name for name in SAMPLES if name not in OFFLINE]


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Office]:
    """With something for every command to show: an image that arrived, its log, and one dead letter."""
    monkeypatch.setattr(waiting, "POLL_S", 0.02)
    config = tmp_path / "relay.toml"
    with opened(RelayConfig.model_validate_json(json.dumps(CONFIG)), monkeypatch) as office:
        office.send(office.world.push("team/app", "one", "1.0")[1])
        office.consume()
        office.bury("junk")
        shown = office.run("config", "show")
        config.write_text(shown.stdout, encoding="utf-8")
        monkeypatch.setitem(SAMPLES, "config push", [str(config), "--dry-run"])
        office.logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName="copier/copier/other")
        yield office


def run(office: Office, name: str, *more: str) -> Any:
    return office.run(*name.split(), *SAMPLES[name], *more)


def raising(error: BaseException) -> Callable[[dict[str, Any]], Any]:
    def call(_arguments: dict[str, Any]) -> Any:
        raise error

    return call


def test_the_samples_are_all_commands() -> None:
    assert set(SAMPLES) == {path for path, _ in reference._commands(app.cli, "")}


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "local up"])
def test_it_works_with_and_without_json(office: Office, name: str) -> None:
    assert run(office, name).exit_code == 0
    if name != "dlq show":  # the dead letter is the same; purge and redrive have moved it away by now, which is fine
        shown = run(office, name, "--json")
        assert (shown.exit_code, shown.stderr) == (0, "")
        answers = reference.ANSWERS[name]
        assert set(json.loads(shown.stdout)) == set(answers[0].model_fields)


COMMON = {"cloudformation:DescribeStacks", "ssm:GetParameter"}
WAYS_OF = {
    "wait": ["wait team/app:1.0 --destination west", "wait team/app:3.0 --destination west --timeout 0.1"],
    "explain": ["explain team/app:3.0"],
    "copy": ["copy team/app:1.0"],
    "status": ["status"],
    "images": ["images", "images --repository team/app"],
    "logs": ["logs team/app:1.0"],
    "dlq list": ["dlq list", "dlq show IMAGE"],
    "dlq purge": ["dlq purge ID --yes"],
    "pause": ["pause", "resume", "pause --destination west", "resume --destination west"],
    "verify": ["verify"],
}


@pytest.mark.parametrize("name", WAYS_OF)
def test_what_a_command_asks_of_aws_is_documented(office: Office, name: str) -> None:
    """By every call that botocore is asked for; the registries are fakes here."""
    _, event = office.world.push("team/app", "two", "2.0")
    office.world.skopeo.fail = [Transient("no such blob")] * 3
    ids = {"IMAGE": office.bury(event)[0], "ID": office.bury("more junk")[0]}
    office.world.source.push("team/app", "three", "3.0")
    office.made.clear()
    for line in WAYS_OF[name]:
        office.run(*(ids.get(word, word) for word in line.split()))
    singular = {"ChangeMessageVisibilityBatch", "DeleteMessageBatch", "SendMessageBatch"}
    made = {call.removesuffix("Batch") if call.partition(":")[2] in singular else call for call in office.made}
    made = {call.replace("monitoring:", "cloudwatch:") for call in made}
    section = Path("docs/operating.md").read_text(encoding="utf-8").partition("## Who may do what")[2]
    [row] = [line for line in section.splitlines() if line.startswith(f"| `{name}`")]
    assert made == COMMON | set(re.findall(r"`(\w+:\w+)`", row))


WAYS: tuple[tuple[Exception, str, int], ...] = (
    (NoCredentialsError(), "no AWS credentials: log in", 1),
    (NoRegionError(), "no AWS region: give --region", 2),
    (EndpointConnectionError(endpoint_url="https://x.eu-nowhere-1.amazonaws.com"), "is the region right", 1),
)


class _Denied(dict[str, Any]):
    """Whatever is asked but for the stack is denied."""

    def __contains__(self, operation: object) -> bool:
        return operation != "DescribeStacks"

    def __getitem__(self, operation: str) -> Any:
        return refused("AccessDeniedException", operation)


@pytest.mark.parametrize("name", REMOTE)
def test_it_fails_in_a_sentence(office: Office, name: str) -> None:
    found = office.calls.copy()
    for error, words, status in WAYS:
        office.calls["DescribeStacks"] = raising(error)
        assert failed(run(office, name), words, status)
    office.calls = found
    assert failed(run(office, name, "--stack", "other"), "no stack 'other' in region")
    office.calls = _Denied()
    result = run(office, name)
    if name == "doctor":  # whose answer it is
        assert "no permission for" in " ".join(result.stdout.split())
    else:
        assert failed(result, "ecr-relay: no permission for ")
    office.calls = found | {call: raising(KeyboardInterrupt()) for call in ("DescribeStacks", "GetParameter")}
    result = run(office, name)
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")


def failed(result: Any, words: str, status: int = 1) -> bool:
    """One line on stderr, nothing on stdout, this exit status."""
    assert (result.exit_code, result.stdout) == (status, ""), result.output
    assert result.stderr.startswith("ecr-relay: ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return words in result.stderr


class _Gone(io.StringIO):
    """A pipe whose reader has gone."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def write(self, _text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "local up"])
def test_a_reader_that_goes_away_ends_it_quietly(
    office: Office, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--json"]):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", _Gone(descriptor))
            status = app.run([*name.split(), *SAMPLES[name], *more])
        os.close(descriptor)
        assert status == 141
        assert "Traceback" not in capfd.readouterr().err
