"""`ecr-relay local up` as an operator has it: ready, in use, interrupted, killed, crashed."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import urllib3

from local import images
from local.deploy import ROOT, Clients
from local.init import descendants
from local.up import DEFAULT_CONFIG, Endpoints, LocalCloud
from tests.unit.test_config import CERTIFICATE

READY_SECONDS = 60
"""Not the promise, which is 20 s and measured by the bench, but enough on a machine that is busy with other tests."""

PROGRAM = (
    "import sys; from pathlib import Path; from local.up import main; "
    "sys.exit(main(*(Path(name) if name else None for name in sys.argv[1:])))"
)


@dataclass
class Up:
    """A `local up` of the test's own."""

    process: "subprocess.Popen[str]"
    state: Path

    def ready(self) -> dict[str, Any]:
        """The ready line. Fails the test when it ends instead."""
        stdout = self.process.stdout
        assert stdout
        assert select.select([stdout], [], [], READY_SECONDS)[0], "not ready in time"
        line = stdout.readline()
        assert line, self.end()[1]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self, seconds: float = 20) -> tuple[int, str]:
        """(exit status, what it said on stderr), once it has ended by itself."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said


@contextmanager
def up(state: Path, config: Path | None = None) -> Iterator[Up]:
    command = [sys.executable, "-c", PROGRAM, str(state), str(config or "")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Up(process, state)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if state_of(pid) not in "ZX"]


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def child(up: Up, module: str) -> int:
    """The process id of one of its servers."""
    for pid in descendants(up.process.pid):
        if module in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0"):
            return pid
    raise AssertionError(f"{module} does not run")


# In use -----------------------------------------------------------------------------------------------------------


def event_queue(clients: Clients) -> str:
    """The URL of a queue that gets every ECR event of the source, besides the copy queue."""
    name = f"seen-{uuid.uuid4().hex[:8]}"
    sqs, events = clients("sqs"), clients("events")
    url = str(sqs.create_queue(QueueName=name)["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.ecr"]}))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
    return url


def receive(clients: Clients, url: str, count: int) -> list[Any]:
    found: list[Any] = []

    def enough() -> bool:
        answer = clients("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            found.append(json.loads(message["Body"]))
            clients("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(found) >= count

    until(enough, 5)
    return found


def push(cloud: LocalCloud, made: images.Made, name: str) -> None:
    """By skopeo, as anybody would; the repository is made by it."""
    command = ["skopeo", "copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]
    target = f"docker://{cloud.endpoints.source_registry}/{name}"
    subprocess.run([*command, made.source, target], check=True, timeout=60)


def test_a_pushed_index_is_told_as_aws_tells_it(cloud: LocalCloud, clients: Clients, tmp_path: Path) -> None:
    url = event_queue(clients)
    made = images.index(tmp_path / "index", uuid.uuid4().hex)
    push(cloud, made, "never/seen/before:1.2")
    events = receive(clients, url, 5)
    for event in events:
        assert set(event) == {
            *("version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail")
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event["time"])
        assert (event["account"], event["region"]) == (clients.account, clients.region)
        assert (event["source"], event["detail-type"]) == ("aws.ecr", "ECR Image Action")
        assert event["resources"] == []
    common = {"result": "SUCCESS", "action-type": "PUSH", "repository-name": "never/seen/before"}
    children = [
        {**common, "image-digest": digest, "image-tag": "", "manifest-media-type": images.OCI_MANIFEST}
        for digest in made.children
    ]
    index = {**common, "image-digest": made.digest, "image-tag": "1.2", "manifest-media-type": images.OCI_INDEX}
    assert [event["detail"] for event in events[-1:]] == [index]
    assert sorted((event["detail"] for event in events[:-1]), key=str) == sorted(children, key=str)


def test_images_are_stored_byte_for_byte(cloud: LocalCloud, tmp_path: Path) -> None:
    makers = (images.single, images.index, images.artifact, images.schema2)
    for maker in makers:
        made = maker(tmp_path / maker.__name__, uuid.uuid4().hex)
        name = f"kinds/{maker.__name__}:1"
        push(cloud, made, name)
        target = f"docker://{cloud.endpoints.source_registry}/{name}"
        command = ["skopeo", "inspect", "--raw", "--tls-verify=false", target]
        assert subprocess.run(command, check=True, capture_output=True, timeout=60).stdout == made.manifest


def test_a_destination_makes_no_repository_by_itself(cloud: LocalCloud, west: Clients, tmp_path: Path) -> None:
    made = images.single(tmp_path / "image", uuid.uuid4().hex)
    token = west("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    authfile = tmp_path / "auth.json"
    host = cloud.endpoints.destination_registries["west"]
    authfile.write_text(json.dumps({"auths": {host: {"auth": token}}}), encoding="utf-8")
    command = ["skopeo", "copy", "--dest-tls-verify=false", "--authfile", str(authfile)]
    ended = subprocess.run(
        [*command, made.source, f"docker://{host}/not/there:1"], capture_output=True, text=True, check=False
    )
    assert ended.returncode
    assert "repository with name 'not/there' does not exist in the registry" in ended.stderr


# Ready, ended, killed, crashed ------------------------------------------------------------------------------------


def test_two_at_once_and_then_nothing_is_left(tmp_path: Path) -> None:
    with up(tmp_path / "one") as first, up(tmp_path / "two") as second:
        for running in (first, second):
            ready = running.ready()
            assert list(ready) == [field.name for field in fields(Endpoints)]
            assert json.loads((running.state / "endpoints.json").read_text(encoding="utf-8")) == ready
            assert Path(ready["log_dir"]) == running.state / "logs"
            health = urllib3.request("GET", f"{ready['aws_endpoint_url']}/_ministack/health", retries=False, timeout=30)
            assert health.status == 200
        with up(tmp_path / "one") as third:
            status, said = third.end()
        assert status == 1
        assert f"{tmp_path / 'one'} is in use by another `ecr-relay local up` (process {first.process.pid})" in said

        processes = [*descendants(first.process.pid), *descendants(second.process.pid)]
        assert len(alive(processes)) >= 6  # MiniStack, the engine, a warm consumer, each
        first.process.send_signal(signal.SIGINT)
        second.process.send_signal(signal.SIGTERM)
        assert [first.end()[0], second.end()[0]] == [0, 0]
        assert alive(processes) == []
        assert not (tmp_path / "one" / "endpoints.json").exists()
        assert not (tmp_path / "one" / "tmp").exists()
        assert list((tmp_path / "one" / "logs").iterdir())


def test_killed_it_leaves_nothing_running(tmp_path: Path) -> None:
    with up(tmp_path / "state") as running:
        running.ready()
        processes = descendants(running.process.pid)
        running.process.kill()
        until(lambda: not alive(processes))
    with up(tmp_path / "state") as again:  # what it left behind in the folder is in nobody's way
        again.ready()


@pytest.mark.parametrize("module", ["local.cloud", "local.engine"])
def test_a_crash_is_noticed_and_said(module: str, tmp_path: Path) -> None:
    with up(tmp_path / "state") as running:
        running.ready()
        processes = descendants(running.process.pid)
        os.kill(child(running, module), signal.SIGKILL)
        status, said = running.end()
        assert status == 1
        name = module.partition(".")[2]
        assert f"the local {name} has ended by itself (exit status -9); see {tmp_path}/state/logs/{name}.log" in said
        assert alive(processes) == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "precious").touch()
    with up(tmp_path) as running:
        status, said = running.end()
    assert status == 1
    assert said.startswith(f"{tmp_path} is not empty, and no state of an earlier `ecr-relay local up`")
    assert (tmp_path / "tmp" / "precious").exists()


def test_interrupted_while_it_starts_it_leaves_nothing(tmp_path: Path) -> None:
    with up(tmp_path / "state") as running:
        processes = until(lambda: found if len(found := descendants(running.process.pid)) >= 2 else None)
        running.process.send_signal(signal.SIGTERM)
        assert running.end()[0] == 0
        until(lambda: not alive(processes))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[source]", "[sauce]"), "sauce: unknown key"),
        (('"eu-west-1"', '"eu-west-11"'), "destinations[0].region: 'eu-west-11' is no AWS region"),
        (('"us-east-1"', "1"), "source.region: "),
        (("[source]", '[deployment]\nca_bundle = "absent.pem"\n[source]'), "deployment.ca_bundle: "),
    ],
)
def test_a_wrong_configuration_starts_nothing(change: tuple[str, str], says: str, tmp_path: Path) -> None:
    config = tmp_path / "relay.toml"
    config.write_text(DEFAULT_CONFIG.replace(*change), encoding="utf-8")
    with up(tmp_path / "state", config) as running:
        status, said = running.end()
    assert status == 2
    assert any(line.startswith(f"{config}: {says}") for line in said.splitlines()), said
    assert "Traceback" not in said
    assert not (tmp_path / "state").exists()


def test_two_accounts_and_a_relay_in_a_third(tmp_path: Path) -> None:
    """Events of the source's account are forwarded to where the relay is, and each registry has its own port."""
    config = tmp_path / "relay.toml"
    (tmp_path / "company.pem").write_text(CERTIFICATE, encoding="utf-8")
    config.write_text(
        '[source]\naccount = "111111111111"\nregion = "us-west-2"\n'
        '[[destinations]]\nname = "there"\naccount = "222222222222"\nregion = "eu-central-1"\n'
        '[deployment]\naccount = "333333333333"\nregion = "us-east-2"\nca_bundle = "company.pem"\n',
        encoding="utf-8",
    )
    with up(tmp_path / "state", config) as running:
        ready = running.ready()
        assert (ready["account_id"], ready["region"]) == ("333333333333", "us-east-2")
        assert set(ready["destination_registries"]) == {"there"}
        clients = Clients(ready["aws_endpoint_url"], "333333333333", "us-east-2")
        url = event_queue(clients)
        made = images.single(tmp_path / "image", uuid.uuid4().hex)
        command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", made.source]
        subprocess.run([*command, f"docker://{ready['source_registry']}/some/app:1"], check=True, timeout=60)
        (event,) = receive(clients, url, 1)
        assert (event["account"], event["region"]) == ("111111111111", "us-west-2")
