"""What an operator waits for: commands as processes, against the local cloud with a ledger and a dead-letter queue.

The aim is two seconds a command at 10,000 records and 1,000 dead letters. The first line is a command that asks
nothing, so that the ratios say what the asking costs beside Python's own start.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import boto3

from ecr_relay.ledger import Job, Target, now_ms
from ecr_relay.ledger.runs import Run
from ecr_relay.messages import Envelope
from local.deploy import ROOT
from tests.bench.cloud import Cloud, config, up
from tests.bench.figures import BenchError, Figures, Row, median, seconds, spread, times

RECORDS: Final = 10_000
LETTERS: Final = 1_000
RUNS: Final = 5
REPOSITORIES: Final = 200
COMMANDS: Final = (
    ("config", "check", "relay.example.toml"),
    ("status",),
    ("images",),
    ("images", "--status", "exhausted"),
    ("images", "--repository", "team/app-7"),
    ("dlq", "list"),
    ("dlq", "list", "--limit", "100"),
    ("dlq", "list", "--repository", "team/app-7"),
)


def measure(figures: Figures, folder: Path) -> None:
    with up(folder / "state", config(folder)) as cloud:
        fill(cloud)
        with figures.section(f"an operator's commands: {RECORDS} records, {LETTERS} dead letters") as rows:
            first = 0.0
            for command in COMMANDS:
                took = [_run(folder / "state", command) for _ in range(RUNS)]
                first = first or median(took)
                rows.append(Row(" ".join(command), seconds(median(took)), times(median(took), first), spread(took)))


def _run(state: Path, command: tuple[str, ...]) -> float:
    """Seconds."""
    where = [] if command[0] == "config" else ["--state", str(state)]
    program = [str(Path(sys.executable).parent / "ecr-relay"), *where]
    began = time.monotonic()
    done = subprocess.run([*program, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"`ecr-relay {' '.join(command)}`: {done.stderr.strip()}")
    return time.monotonic() - began


def fill(cloud: Cloud) -> None:
    """As if so many images had been copied, and so many given up. What the relay writes itself is not timed here."""
    place = cloud.clients
    session = boto3.Session(aws_access_key_id=place.account, aws_secret_access_key="local", region_name=place.region)
    table = session.resource("dynamodb", endpoint_url=place.endpoint).Table(cloud.endpoints.ledger_table)
    letters = list(_letters(cloud))
    with table.batch_writer() as batch:
        for item in _items(cloud, letters):
            batch.put_item(Item=item)
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda start: _send(cloud, letters[start : start + 10]), range(0, LETTERS, 10)))
    with table.batch_writer() as batch:
        for message_id in (message_id for ids in sent for message_id in ids):
            batch.put_item(
                Item={"pk": f"MSG#{message_id}", "sk": "MSG", "reason": "Transient: blob lost", "refused_at": now_ms()}
            )


def _target(cloud: Cloud, number: int) -> Target:
    return Target(cloud.config.source.id, "west", f"team/app-{number % REPOSITORIES}")


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


def _letters(cloud: Cloud) -> Iterator[Envelope]:
    for number in range(LETTERS):
        target = _target(cloud, number)
        yield Envelope(
            lane="push",
            source=target.source,
            destination=target.destination,
            repository=target.repository,
            tag=f"1.{number}",
            digest=_digest(number),
            first_seen=now_ms() - 60_000,
        )


def _items(cloud: Cloud, letters: list[Envelope]) -> Iterator[dict[str, Any]]:
    now = now_ms()
    for number in range(RECORDS):
        dead, target = number < len(letters), _target(cloud, number)
        common = {"version": 2, "run": f"run-{number // 10}", "first_seen": now - 60_000, "changed_at": now}
        dead_only = {
            "status": "exhausted",
            "state": "exhausted",
            "attempts": 3,
            "failed_at": now,
            "error": "initializing source docker://source/team/app: reading manifest: blob unknown to registry",
            "error_class": "Transient",
        }
        copied = {"status": "copied", "attempts": 0, "verified_at": now, "arrived_at": now}
        yield {"pk": target.pk, "sk": f"D#{_digest(number)}", **common, **(dead_only if dead else copied)}
        if not dead:
            yield {"pk": target.pk, "sk": f"T#1.{number}", "digest": _digest(number), "verified_at": now}
    for start in range(0, len(letters), 10):
        jobs = tuple(Job(repository=one.repository, digest=one.digest) for one in letters[start : start + 10])
        run = Run(
            id=f"run-{start // 10}",
            source=letters[0].source,
            destination="west",
            lane="push",
            created_at=now,
            jobs=jobs,
        )
        task = f"arn:aws:ecs:us-east-1:000000000000:task/relay/{start:032x}"
        yield {"pk": f"RUN#{run.id}", "sk": "RUN", "body": run.model_dump_json(), "task": task}


def _send(cloud: Cloud, letters: list[Envelope]) -> list[str]:
    entries: Any = [{"Id": str(number), "MessageBody": one.body()} for number, one in enumerate(letters)]
    answer = cloud.clients("sqs").send_message_batch(QueueUrl=cloud.endpoints.dlq_url, Entries=entries)
    if len(answer.get("Successful", [])) != len(letters):
        raise BenchError(f"SQS took only some: {json.dumps(answer.get('Failed'))}")
    return [entry["MessageId"] for entry in answer["Successful"]]
