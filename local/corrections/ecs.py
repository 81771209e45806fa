"""RunTask and StopTask, where MiniStack answers otherwise than AWS."""

import json
import threading
from typing import Any

from ministack.core.concurrency import resource_lock, spawn_background
from ministack.core.responses import (
    error_response_json,
    get_account_id,
    get_region,
    json_response,
    now_iso,
    request_scope,
)
from ministack.services import ecs, ecs_metadata

Request = dict[str, Any]
Task = dict[str, Any]
Response = tuple[int, dict[str, str], bytes]

STOP_SECONDS = 30
"""ECS: "The default value is 30 seconds" between SIGTERM and SIGKILL (`stopTimeout`)."""

OVERRIDES_LIMIT = 8192
"""ECS: "A total of 8192 characters are allowed for overrides"."""

_run_task = ecs._run_task
_tokens: dict[tuple[str, str, str, str], tuple[str, list[str]]] = {}
_tokens_lock = threading.Lock()


def error(code: str, message: str) -> Response:
    response: Response = error_response_json(code, message, 400)
    return response


def run_task(data: Request) -> Response:
    """AWS: the same `clientToken` gives the same tasks; no such cluster, no network and long overrides are errors."""
    cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
    if cluster not in ecs._clusters:
        return error("ClusterNotFoundException", "Cluster not found.")
    definition = ecs._task_defs.get(ecs._resolve_td_key(data.get("taskDefinition", ""))) or {}
    if definition.get("networkMode") == "awsvpc" and not data.get("networkConfiguration"):
        return error(
            "InvalidParameterException",
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        )
    if len(json.dumps(data.get("overrides") or {}, separators=(",", ":"))) > OVERRIDES_LIMIT:
        return error("InvalidParameterException", f"Container Overrides length must be at most {OVERRIDES_LIMIT}")
    token = data.get("clientToken")
    if not token:
        response: Response = _run_task(data)
        return response
    return _run_once((get_account_id(), get_region(), cluster, token), data)


def _run_once(key: tuple[str, str, str, str], data: Request) -> Response:
    wanted = json.dumps(data, sort_keys=True)
    with _tokens_lock:
        if key not in _tokens:
            response: Response = _run_task(data)
            if response[0] == 200:
                _tokens[key] = (wanted, [task["taskArn"] for task in json.loads(response[2])["tasks"]])
            return response
        first, arns = _tokens[key]
    if first != wanted:
        return error(
            "ConflictException",
            "The RunTask request could not be processed due to conflicts. The provided clientToken is already in use "
            "with a different RunTask request.",
        )
    answer: Response = json_response({"tasks": [ecs._sanitize(ecs._tasks[arn]) for arn in arns], "failures": []})
    return answer


def stop_task(data: Request) -> Response:
    """AWS: answers at once with the desired status; the task is STOPPED when its containers have ended, by SIGTERM and
    after `stopTimeout` by SIGKILL, with the exit codes that they had. MiniStack says STOPPED, exit code 0, first.
    """
    cluster = ecs._resolve_cluster_name(data.get("cluster", "default"))
    if cluster not in ecs._clusters:
        return error("ClusterNotFoundException", "Cluster not found.")
    task = ecs._resolve_task(data.get("task", ""), cluster)
    if not task:
        return error("InvalidParameterException", "The referenced task was not found.")
    with resource_lock("ecs-task", task["taskArn"]):
        first = ecs._task_is_active(task["taskArn"], task)
        if first:
            ecs._bump_task_version(task)
            task["desiredStatus"] = "STOPPED"
            task["stoppingAt"] = now_iso()
            task["stoppedReason"] = data.get("reason", "Task stopped by user")
            task["stopCode"] = "UserInitiated"
    if first:
        scope = (get_account_id(), get_region())
        spawn_background(lambda: _stop(task, *scope), thread_name="ecs-stop")
    response: Response = json_response({"task": ecs._sanitize(task)})
    return response


def _stop(task: Task, account: str, region: str) -> None:
    task_id = task["taskArn"].rsplit("/", 1)[-1]
    # What is still starting notices the desired status, and takes back what it has created.
    for thread in threading.enumerate():
        if thread.name == f"ministack-ecs-task-{task_id[:8]}":
            thread.join()
    docker = ecs._get_docker()
    with request_scope(account, region):
        definition = ecs._task_defs.get(ecs._resolve_td_key(task["taskDefinitionArn"])) or {}
        containers = definition.get("containerDefinitions", [])
        codes: list[int | None] = []
        for index, docker_id in enumerate(task.get("_docker_ids") or []):
            seconds = containers[index].get("stopTimeout", STOP_SECONDS) if index < len(containers) else STOP_SECONDS
            codes.append(_stop_container(docker, docker_id, int(seconds)))
        _mark_stopped(task, codes)
        ecs._cleanup_task_resources(task, docker)


def _stop_container(docker: Any, docker_id: str, seconds: int) -> int | None:
    try:
        container = docker.containers.get(docker_id)
        container.stop(timeout=seconds)
        return int(container.wait()["StatusCode"])
    except Exception:  # noqa: BLE001 - docker-py's own tree; whatever it was, the container is gone
        return None


def _mark_stopped(task: Task, codes: list[int | None]) -> None:
    arn = task["taskArn"]
    with resource_lock("ecs-task", arn):
        ecs._bump_task_version(task)
        task["lastStatus"] = "STOPPED"
        task["stoppedAt"] = task["executionStoppedAt"] = now_iso()
        for index, container in enumerate(task.get("containers", [])):
            container["lastStatus"] = "STOPPED"
            if index < len(codes) and codes[index] is not None:
                container["exitCode"] = codes[index]
    ecs_metadata.set_task_status(arn, known_status="STOPPED", desired_status="STOPPED")
    ecs_metadata.set_all_container_status(arn, "STOPPED")
    ecs._recount_cluster(ecs._cluster_name_from_arn(task["clusterArn"]))


def apply() -> None:
    ecs._run_task = run_task
    ecs._stop_task = stop_task
    ecs._ACTION_MAP.update(RunTask=run_task, StopTask=stop_task)
