"""The task engine: tasks of MiniStack's ECS as real processes, which end as a container's would."""

import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from local import dockerfile
from local.servers import Servers
from tests.integration import local_clouds as clouds
from tests.integration.local_clouds import DESTINATION, SOURCE


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with clouds.cloud(tmp_path_factory.mktemp("cloud"), corrected=True) as running:
        prepare(running)
        yield running


def prepare(cloud: Servers) -> None:
    cloud.clients("ecs").create_cluster(clusterName="here")
    logs = {"awslogs-group": "tasks", "awslogs-region": SOURCE[1], "awslogs-stream-prefix": "it"}
    cloud.clients("logs").create_log_group(logGroupName="tasks")
    cloud.clients("ecs").register_task_definition(
        family="shell",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[
            {
                "name": "copier",
                "image": "any",
                "environment": [{"name": "GIVEN", "value": "by the definition"}],
                "logConfiguration": {"logDriver": "awslogs", "options": logs},
            }
        ],
    )


def run(cloud: Servers, script: str, **environment: str) -> str:
    """Start a task; its ARN."""
    given = [{"name": name, "value": value} for name, value in environment.items()]
    overrides = {"containerOverrides": [{"name": "copier", "command": [script], "environment": given}]}
    answer = cloud.clients("ecs").run_task(
        cluster="here",
        taskDefinition="shell",
        launchType="FARGATE",
        networkConfiguration=clouds.NETWORK,
        overrides=overrides,
    )
    return str(answer["tasks"][0]["taskArn"])


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def stopped(cloud: Servers, task: str) -> Any:
    """The task, once it has stopped."""

    def look() -> Any:
        (found,) = cloud.clients("ecs").describe_tasks(cluster="here", tasks=[task])["tasks"]
        return found if found["lastStatus"] == "STOPPED" else None

    return until(look)


def exit_code(cloud: Servers, task: str) -> int:
    return int(stopped(cloud, task)["containers"][0]["exitCode"])


def log_of(cloud: Servers, task: str) -> Path:
    return Path(cloud.spec.log_dir) / f"{task.rpartition('/')[2]}.log"


def log_text(cloud: Servers, task: str) -> str:
    log = log_of(cloud, task)
    return log.read_text(encoding="utf-8") if log.exists() else ""


def printed(cloud: Servers, task: str, name: str) -> str:
    """What the task has printed as `name=value`, waiting for it."""
    pattern = re.compile(rf"^{name}=(.*)$", re.MULTILINE)
    match: re.Match[str] = until(lambda: pattern.search(log_text(cloud, task)))
    return match.group(1)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[1])


TREE = "sleep 300 & echo child=$!; setsid sleep 300 & echo escaped=$!; echo leader=$$; wait"
"""A leader with a child in its session, and one that has left it, as skopeo does."""


def tree(cloud: Servers) -> tuple[str, dict[str, int]]:
    task = run(cloud, TREE)
    names = ("child", "escaped", "leader")
    pids = {name: int(printed(cloud, task, name)) for name in names}
    assert all(alive(pid) for pid in pids.values())
    return task, pids


def test_a_task_has_its_own_environment_and_nothing_of_ours(cloud: Servers) -> None:
    os.environ["ECR_RELAY_LEAKED"] = "no"
    try:
        # A path of the image's is none of this machine's.
        task = run(cloud, "env", GIVEN_TOO="by RunTask", AWS_CA_BUNDLE="/etc/ca.pem", SSL_CERT_FILE="/etc/ca.pem")
        assert exit_code(cloud, task) == 0
    finally:
        del os.environ["ECR_RELAY_LEAKED"]
    environment = dict(line.split("=", 1) for line in log_text(cloud, task).splitlines())
    assert environment.pop("PWD") == environment["HOME"]
    assert set(environment) == {
        *("GIVEN", "GIVEN_TOO"),
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV", "AWS_ENDPOINT_URL"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "ECS_CONTAINER_METADATA_URI_V4"),
        *("PATH", "PYTHONPATH", "HOME", "TMPDIR", "LANG"),
    }
    assert environment["AWS_REGION"] == SOURCE[1]
    assert environment["AWS_ENDPOINT_URL"] == cloud.clients.endpoint
    metadata = urllib3.request("GET", environment["ECS_CONTAINER_METADATA_URI_V4"], retries=False, timeout=30)
    assert metadata.status in (200, 404)  # 404: the task has ended
    assert not Path(environment["HOME"]).exists()  # a task's storage ends with it


def test_skopeo_in_a_task_speaks_plain_http_to_the_registries(cloud: Servers) -> None:
    repository = clouds.repository(cloud, DESTINATION)
    host = cloud.registry(DESTINATION).host
    task = run(cloud, f"skopeo list-tags docker://{host}/{repository}")
    assert exit_code(cloud, task) == 0, log_text(cloud, task)


def test_an_exit_code_is_reported(cloud: Servers) -> None:
    found = stopped(cloud, run(cloud, "exit 3"))
    assert found["stopCode"] == "EssentialContainerExited"
    assert found["containers"][0]["exitCode"] == 3


def test_what_cannot_be_run_says_so(cloud: Servers) -> None:
    assert exit_code(cloud, run(cloud, "no-such-program")) == 127


def test_a_killed_leader_takes_all_with_it(cloud: Servers) -> None:
    task, pids = tree(cloud)
    os.kill(pids["leader"], signal.SIGKILL)
    assert exit_code(cloud, task) == 137
    assert not any(alive(pid) for pid in pids.values())


def test_a_killed_tree_takes_all_with_it_and_nothing_else(cloud: Servers) -> None:
    other, others = tree(cloud)
    task, pids = tree(cloud)
    os.kill(parent(pids["leader"]), signal.SIGKILL)
    assert exit_code(cloud, task) == 137
    until(lambda: not any(alive(pid) for pid in pids.values()))
    assert all(alive(pid) for pid in others.values())
    cloud.clients("ecs").stop_task(cluster="here", task=other)
    assert exit_code(cloud, other) == 143


def test_tasks_that_start_while_others_are_killed_live(cloud: Servers) -> None:
    """An orphan hunt that took a new task for an orphan killed one in fifty."""
    quick = [run(cloud, "kill -9 $PPID") for _ in range(5)]
    steady = [run(cloud, "sleep 0.3; exit 5") for _ in range(10)]
    assert [exit_code(cloud, task) for task in steady] == [5] * 10
    assert [exit_code(cloud, task) for task in quick] == [137] * 5


def test_a_leader_that_ends_takes_its_children_with_it(cloud: Servers) -> None:
    task = run(cloud, "setsid sleep 300 & echo escaped=$!; sleep 0.2")
    escaped = int(printed(cloud, task, "escaped"))
    assert exit_code(cloud, task) == 0
    assert not alive(escaped)


def test_stopping_kills_what_ignores_it(cloud: Servers) -> None:
    task, pids = tree(cloud)
    cloud.clients("ecs").stop_task(cluster="here", task=task, reason="enough")
    found = stopped(cloud, task)
    assert (found["stopCode"], found["stoppedReason"]) == ("UserInitiated", "enough")
    assert not any(alive(pid) for pid in pids.values())


def test_a_task_that_is_stopped_while_it_starts_is_stopped(cloud: Servers) -> None:
    for _ in range(5):
        mark = uuid.uuid4().hex
        task = run(cloud, f": {mark}; sleep 300")
        cloud.clients("ecs").stop_task(cluster="here", task=task)
        stopped(cloud, task)
        assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in command_line(path)]


def command_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def test_output_is_in_a_file_and_in_the_log_group(cloud: Servers) -> None:
    task = run(cloud, "echo one; echo two >&2; printf three")
    assert exit_code(cloud, task) == 0
    assert sorted(log_text(cloud, task).split()) == ["one", "three", "two"]
    task_id = task.rpartition("/")[2]
    stream = {"logGroupName": "tasks", "logStreamName": f"it/copier/{task_id}"}

    def messages() -> list[str]:
        try:
            events = cloud.clients("logs").get_log_events(**stream)["events"]
        except cloud.clients("logs").exceptions.ResourceNotFoundException:
            return []
        return sorted(event["message"] for event in events)

    assert until(lambda: found if len(found := messages()) == 3 else None) == ["one", "three", "two"]


def test_what_the_engine_is_not_it_says(cloud: Servers) -> None:
    engine = cloud.spec.docker_host.replace("tcp", "http")
    answer = urllib3.request("POST", f"{engine}/v1.41/images/create?fromImage=busybox", retries=False, timeout=30)
    assert answer.status == 501
    assert "POST /images/create is not part of this engine" in answer.json()["message"]
    assert urllib3.request("GET", f"{engine}/containers/none/json", retries=False, timeout=30).status == 404


def test_tasks_end_with_the_engine(tmp_path: Path) -> None:
    with clouds.cloud(tmp_path, corrected=True) as cloud:
        prepare(cloud)
        _, pids = tree(cloud)
        engine = next(child for child in cloud.children if child.name == "engine")
        os.kill(engine.pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in pids.values()))
        with pytest.raises(Exception, match="the local engine has ended by itself"):
            until(lambda: cloud.check())


def test_the_entry_point_is_the_images(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(
        "FROM one AS build\nENTRYPOINT [\"never\"]\nFROM two\nENV A=1 \\\n    B='two words'\nENV C three\n"
        'ENTRYPOINT ["python", "-m", "it"]\nCMD ["--help"]\n',
        encoding="utf-8",
    )
    image = dockerfile.read(file)
    assert image.entrypoint == ("python", "-m", "it")
    assert image.command == ("--help",)
    assert image.environment == {"A": "1", "B": "two words", "C": "three"}


@pytest.mark.parametrize("line", ["ENTRYPOINT python -m it", ""])
def test_an_image_without_a_command_that_we_can_run_is_refused(line: str, tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text(f"FROM one\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"ENTRYPOINT|exec form"):
        dockerfile.read(file)
