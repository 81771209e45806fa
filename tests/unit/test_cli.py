"""`ecr-relay` as a whole: how it ends whatever happens, what it imports, and what its help says."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)

from ecr_relay.cli import app, options
from ecr_relay.config import RelayConfig
from ecr_relay.operate.failures import sentence
from tests.unit.conftest import CONFIG, REGION
from tests.unit.office import Office, opened, refused

ROOT = Path(__file__).parents[2]
RUN = "from ecr_relay.cli import main; main()"


@pytest.fixture
def office(monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    with opened(RelayConfig.model_validate_json(json.dumps(CONFIG)), monkeypatch) as office:
        yield office


def process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command line as its own process, with nothing of this one's AWS settings."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ECR_RELAY_"))}
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": "/nonexistent"}
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=ROOT,
        env=environ | nowhere | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def all_commands() -> Iterator[tuple[list[str], click.Command]]:
    """Every command that can be run, with the words that run it."""

    def walk(group: click.Group, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
        for name, command in sorted(group.commands.items()):
            if isinstance(command, click.Group):
                yield from walk(command, [*path, name])
            else:
                yield [*path, name], command

    yield from walk(app.cli, [])


COMMANDS = list(all_commands())


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_teaches_and_takes_json(path: list[str], command: click.Command) -> None:
    from click.testing import CliRunner

    help_ = CliRunner().invoke(app.cli, [*path, "--help"])
    assert help_.exit_code == 0
    assert len(command.get_short_help_str(100)) > 20
    example = help_.output.partition("Example")[2]
    assert f"ecr-relay {' '.join(path)}" in example
    assert all(len(line) <= 100 for line in help_.output.splitlines())
    known = {name for parameter in command.params for name in parameter.opts}
    assert "--json" in known or path == ["local", "up"]  # which prints nothing else
    assert {"--stack", "--state"} <= known or path in (["local", "up"], ["config", "check"])
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help


def test_help_and_completion_import_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from ecr_relay.cli.app import run\n"
        "assert run(['--help']) == 0 and run(['dlq', 'redrive', '--help']) == 0\n"
        "heavy = {'boto3', 'botocore', 'pydantic', 'rich', 'local'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = process("st", COMP_WORDS="ecr-relay st", COMP_CWORD="1", _ECR_RELAY_COMPLETE="bash_complete")
    assert (done.returncode, done.stdout) == (0, "plain,status\n")
    for shell in ("bash", "zsh", "fish"):
        done = process(_ECR_RELAY_COMPLETE=f"{shell}_source")
        assert (done.returncode, f"_ECR_RELAY_COMPLETE={shell}_complete" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["status", "--nonsense"],
        ["dlq", "show"],
        ["images", "--limit"],
        ["status", "--watch", "--interval", "nan"],
        ["sync", "--wait", "--timeout", "inf"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    done = process(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_without_credentials_region_or_profile() -> None:
    done = process("status", "--region", REGION)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ecr-relay: no AWS credentials: log in")
    done = process("status")
    assert (done.returncode, done.stderr.partition(": give")[0]) == (2, "ecr-relay: no AWS region")
    done = process("status", "--profile", "nobody")
    assert (done.returncode, "The config profile (nobody) could not be found" in done.stderr) == (2, True)


def test_a_terminal_without_utf_8(tmp_path: Path) -> None:
    config = tmp_path / "rélay.toml"
    config.write_text((ROOT / "relay.example.toml").read_text(encoding="utf-8"))
    done = process("config", "check", str(config), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "r\\xe9lay.toml is fine" in done.stdout


def test_where_nobody_answers() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_MAX_ATTEMPTS": "1"}
    done = process("status", "--region", REGION, AWS_ENDPOINT_URL="http://127.0.0.1:1", **keys)
    assert done.returncode == 1
    assert done.stderr.startswith("ecr-relay: http://127.0.0.1:1/ does not answer")
    assert len(done.stderr.splitlines()) == 1


def test_who_accepts_and_never_answers_is_given_up_within_half_a_minute(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecr_relay.operate.deployment import Deployment

    deployment = Deployment.find("ecr-relay")

    def longest(client: Any) -> float:
        config = client.meta.config
        return float(config.retries["total_max_attempts"] * max(config.connect_timeout, config.read_timeout))

    quick = [deployment.sqs, deployment.ssm, deployment.ecs, deployment.functions, deployment.client("cloudformation")]
    assert max(map(longest, quick)) <= 25
    assert longest(deployment.logs) == longest(deployment.client("iam")) == 90
    assert longest(deployment.invoker) > 900


def test_a_stack_that_is_not_there_and_one_that_is_no_relays(office: Office) -> None:
    result = office.run("status", "--stack", "other")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"ecr-relay: no stack 'other' in region {REGION}; there is: ecr-relay. "
        "Name it with --stack, its region with --region\n"
    )
    office.plane.stacks["website"] = {"Url": "x", "QueueUrl": "y"}
    result = office.run("--stack", "website", "status")
    assert (result.exit_code, "lacks the outputs DeadLetterQueueUrl, " in result.stderr) == (1, True)
    office.plane.stacks.clear()
    assert "nor is any other relay there" in office.run("status").stderr


def test_the_stack_by_option_before_and_after_the_command_and_by_environment(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.plane.stacks["mine"] = office.plane.stacks.pop("ecr-relay")
    assert office.run("status").exit_code == 1
    assert office.json("status", "--stack", "mine")["stack"] == "mine"
    assert office.json("--stack", "mine", "status")["stack"] == "mine"
    assert office.json("--stack", "other", "status", "--stack", "mine")["stack"] == "mine"
    monkeypatch.setenv("ECR_RELAY_STACK", "mine")
    assert office.json("status")["stack"] == "mine"
    assert office.run("status", "--stack", "other").exit_code == 1


def test_who_may_not_describe_stacks(office: Office) -> None:
    office.plane.denied.add("DescribeStacks")
    result = office.run("status")
    assert (result.exit_code, "no permission for DescribeStacks" in result.stderr) == (1, True)


def test_the_local_relay_by_its_state_directory(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str | None] = {}
    find = "ecr_relay.operate.deployment.Deployment.find"
    from ecr_relay.operate.deployment import Deployment

    def found(stack: str) -> Deployment:
        seen.update({name: os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")})
        seen.update(stack=stack)
        raise KeyboardInterrupt

    monkeypatch.setattr(find, found)
    monkeypatch.setenv("AWS_PROFILE", "production")
    endpoints = {"aws_endpoint_url": "http://127.0.0.1:4566", "region": "eu-west-1", "account_id": "000000000000"}
    endpoints["stack_name"] = "mine"
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    for arguments in (("--state", str(tmp_path), "status"), ("status", "--state", str(tmp_path))):
        assert office.run(*arguments).exit_code == 130
        assert seen == {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:4566",
            "AWS_ACCESS_KEY_ID": "000000000000",
            "AWS_PROFILE": None,
            "stack": "mine",
        }
        assert os.environ["AWS_PROFILE"] == "production"
    assert office.run("status", "--state", str(tmp_path), "--region", "x").exit_code == 2


@pytest.mark.parametrize("content", [None, "", "[]", '{"region": "x"}'])
def test_a_state_directory_without_a_local_cloud(office: Office, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "endpoints.json").write_text(content)
    result = office.run("status", "--state", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ecr-relay: {tmp_path / 'endpoints.json'}: ")
    assert len(result.stderr.splitlines()) == 1


def test_what_nobody_foresaw_is_a_sentence_and_on_demand_a_traceback(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_arguments: object) -> object:
        raise ZeroDivisionError("a fault")

    office.calls["GetParameter"] = broken
    result = office.run("status")
    assert result.exit_code == 1
    assert "this is a fault in ecr-relay itself: ZeroDivisionError: a fault" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("ECR_RELAY_DEBUG", "1")
    assert "Traceback" in office.run("status").stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoCredentialsError(), "no AWS credentials"),
        (PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), "no AWS credentials"),
        (NoRegionError(), "no AWS region"),
        (ProfileNotFound(profile="x"), "The config profile (x) could not be found"),
        (EndpointConnectionError(endpoint_url="http://x"), "http://x does not answer"),
        (ConnectTimeoutError(endpoint_url="http://x"), "http://x does not answer: is the region right, is there a net"),
        (
            EndpointConnectionError(endpoint_url="http://127.0.0.1:4/"),
            "answer: does the local cloud still run? `ecr-re",
        ),
        (ReadTimeoutError(endpoint_url="http://x"), "http://x took too long"),
        (ValueError("Invalid endpoint: nonsense"), "AWS_ENDPOINT_URL, or the profile's endpoint_url, is no URL"),
        (FileNotFoundError(2, "No such file or directory", "x.toml"), "x.toml: No such file or directory"),
        (IsADirectoryError(21, "Is a directory", "x"), "x: Is a directory"),
    ],
)
def test_errors_are_sentences(error: Exception, words: str) -> None:
    text = sentence(error)
    assert text is not None
    assert words in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDeniedException", "no permission for Query"),
        ("ExpiredTokenException", "have expired"),
        ("UnrecognizedClientException", "does not know these credentials"),
        ("ResourceNotFoundException", "was the stack deleted"),
        ("ThrottlingException", "slow down"),
        ("SomethingElse", "Query: SomethingElse: Query is refused"),
    ],
)
def test_answers_of_aws_are_sentences(office: Office, code: str, words: str) -> None:
    office.calls["Query"] = refused(code, "Query")
    result = office.run("status")
    assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, "config", "show", "--file", "relay.example.toml"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.close()
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait() == 141


def test_interrupted_is_130_without_a_word(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_arguments: object) -> object:
        raise KeyboardInterrupt

    office.calls["GetParameter"] = interrupted
    result = office.run("status")
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")


def test_a_real_interrupt_ends_a_real_process(office: Office) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": REGION}
    script = (
        "import signal, time, ecr_relay.operate.deployment as d\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in what a shell runs in the background
        f"d.Deployment.find = lambda *_: print('there', flush=True) or time.sleep(30)\n{RUN}"
    )
    environ = {**os.environ, **keys}
    with subprocess.Popen(
        [sys.executable, "-c", script, "status"],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == b"there\n"
        child.send_signal(signal.SIGINT)
        assert child.stderr.read().strip() == b""
        assert child.wait() == 130


def test_an_interrupt_at_the_interpreters_end_is_no_traceback() -> None:
    script = f"import atexit, os, signal, time\natexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n{RUN}"
    ended = subprocess.run(
        [sys.executable, "-c", script, "--version"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_local_up_outside_a_checkout_says_so(monkeypatch: pytest.MonkeyPatch, office: Office) -> None:
    monkeypatch.setitem(sys.modules, "local.up", None)
    result = office.run("local", "up")
    assert result.exit_code == 1
    assert "runs from a checkout" in result.stderr


def test_local_up_gets_what_it_is_told(monkeypatch: pytest.MonkeyPatch, office: Office, tmp_path: Path) -> None:
    import types

    told: list[object] = []
    fake = types.ModuleType("local.up")
    fake.main = lambda *given: told.append(given) or 0  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "local.up", fake)
    config = tmp_path / "relay.toml"
    assert office.run("local", "up", "--state", str(tmp_path), "--config", str(config)).exit_code == 0
    assert office.run("--state", str(tmp_path), "local", "up", "--secrets", str(config)).exit_code == 0
    assert told == [(tmp_path, config, None), (tmp_path, None, config)]


def test_images_are_named_with_or_without_the_registry() -> None:
    image = options.ImageType()
    for text in ("127.0.0.1:5000/team/app:1", "1.dkr.ecr.eu-west-1.amazonaws.com/team/app:1", "team/app:1"):
        assert str(image.convert(text, None, None)) == "team/app:1"
    assert str(image.convert("my.team/app:1", None, None)) == "my.team/app:1"
