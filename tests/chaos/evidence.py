"""What the logs and ECS say of a run, and what follows from it. Pure, but for reading files."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.load import Told

Line = dict[str, Any]
Digest = tuple[str, str]
"""Repository and digest."""
Tag = tuple[str, str]
"""Repository and tag."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Something was so from `begin` to `end`, in seconds since the epoch."""

    begin: float
    end: float
    what: str
    run: str = ""
    """Of a task, by its `startedBy`."""


@dataclass(frozen=True, slots=True)
class Logs:
    """`tasks`: by the task's id, in order. `consumer`: all of its lines. `strange`: what is no JSON line of ours."""

    tasks: Mapping[str, list[Line]]
    consumer: list[Line]
    strange: list[str]


def read(folder: Path, consumer_function: str) -> Logs:
    """Everything that was logged so far."""
    strange: list[str] = []
    tasks = {}
    for path in sorted(folder.glob("*-*-*-*-*.log")):
        if not path.name.startswith("lambda-"):
            tasks[path.stem] = _lines(path, strange)
    consumer = _lines(folder / f"lambda-{consumer_function}.log", strange)
    return Logs(tasks, sorted(consumer, key=when), strange)


def _lines(path: Path, strange: list[str]) -> list[Line]:
    found: list[Line] = []
    if not path.exists():
        return found
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and "timestamp" in line:
            found.append(line)
        elif text.strip():
            strange.append(f"{path.name}: {text}")
    return found


def when(line: Line) -> float:
    """Seconds since the epoch. Powertools writes a comma before the milliseconds."""
    return datetime.fromisoformat(str(line["timestamp"]).replace(",", ".")).timestamp()


def most_at_once(intervals: Iterable[Interval]) -> int:
    """How many were so at the same time. One that ends when another begins was not there with it."""
    changes = sorted(
        [(interval.begin, 1) for interval in intervals if interval.end > interval.begin]
        + [(interval.end, -1) for interval in intervals if interval.end > interval.begin]
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def copies(logs: Logs, ended: Mapping[str, float], jobs: Mapping[str, Sequence[Digest]]) -> dict[str, list[Interval]]:
    """`repository@digest` -> when a task that had claimed it may have copied it.

    From its `begin` to the line with the outcome, or to the task's own end (`ended`, by task id). `jobs`: what each run
    had to copy.
    """
    found: dict[str, list[Interval]] = {}
    for task, lines in logs.tasks.items():
        begin = next((line for line in lines if line["message"] == "begin"), None)
        if begin is None:
            continue
        over = ended.get(task, when(lines[-1]))
        outcomes = {
            f"{line['repository']}@{line['digest']}": when(line)
            for line in lines
            if line["message"] in OUTCOMES and "digest" in line
        }
        for repository, digest in jobs.get(begin["run"], ()):
            image = f"{repository}@{digest}"
            end = min(outcomes.get(image, over), over)
            found.setdefault(image, []).append(Interval(when(begin), end, task))
    return found


OUTCOMES = ("copied", "was there", "copy failed", "copied, but the claim was lost meanwhile")


def overlaps(copies: Mapping[str, Sequence[Interval]]) -> list[str]:
    """Images that two tasks had at the same time, with the two tasks."""
    found = []
    for image, intervals in sorted(copies.items()):
        ordered = sorted(intervals, key=lambda interval: interval.begin)
        for first, second in itertools.pairwise(ordered):
            if second.begin < first.end:
                found.append(f"{image}: task {first.what} until {first.end:.3f}, {second.what} from {second.begin:.3f}")
    return found


def copied_again(logs: Logs) -> list[str]:
    """Images that were copied, bytes and all, more than once."""
    counts = Counter(
        f"{line['repository']}@{line['digest']}"
        for lines in logs.tasks.values()
        for line in lines
        if line["message"] == "copied"
    )
    return sorted(f"{image}: {count} times" for image, count in counts.items() if count > 1)


def arrivals(logs: Logs) -> dict[Tag, list[tuple[float, str]]]:
    """(repository, tag) -> when which digest was said to be there, by the copier or by the consumer, in order."""
    found: dict[Tag, list[tuple[float, str]]] = {}

    def arrived(line: Line, repository: str, tag: str, digest: str) -> None:
        found.setdefault((repository, tag), []).append((when(line), digest))

    for lines in logs.tasks.values():
        for line in lines:
            if line["message"] == "tag" and line.get("outcome") == "Applied":
                arrived(line, line["repository"], line["tag"], line["digest"])
    for line in logs.consumer:
        if line["message"] in ("retagged", "skipped", "joined", "copied") and " has sha256:" in line.get("reason", ""):
            arrived(line, line["repository"], line["tag"], line["reason"].rpartition(" ")[2])
    return {key: sorted(values) for key, values in found.items()}


def lags(told: Mapping[Tag, Sequence[Told]], there: Mapping[Tag, Sequence[tuple[float, str]]]) -> list[float]:
    """Seconds from each push or move until the destination had that digest, or one that the tag was given later."""
    found = []
    for key, changes in told.items():
        for number, change in enumerate(changes):
            for at, digest in there.get(key, ()):
                if at >= change.at and any(later.digest == digest and later.at <= at for later in changes[number:]):
                    found.append(at - change.at)
                    break
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Grounds:
    """What was done by us to a whole image, or to a message of it, that is a dead letter all the same."""

    failures: int
    """Attempts at its digest that failed, by the copiers' logs."""
    tasks_killed: int
    """Tasks that had its digest and were killed."""
    refusals: int
    """Deliveries that the consumer failed for a reason of its own, such as a ledger out of reach."""
    unanswered: int
    """Deliveries of which nobody says anything, at most as many as consumers were killed meanwhile."""


def grounds(
    logs: Logs,
    letter: Mapping[str, Any],
    digests: Iterable[str],
    killed_tasks: Sequence[Sequence[Digest]],
    consumer_kills: Sequence[float],
) -> Grounds:
    """`letter`: of `ecr-relay dlq list --json`. `digests`: its own, and all that its tag had: a message asks for what
    the tag has when it is read. `killed_tasks`: what each task that was killed had to copy.
    """
    said = [line for line in logs.consumer if line.get("message_id") == letter["id"] and line["message"] == "failed"]
    failures = Counter(
        (line["repository"], line["digest"])
        for lines in logs.tasks.values()
        for line in lines
        if line["message"] == "copy failed"
    )
    killed = Counter(job for jobs in killed_tasks for job in jobs)
    images = [(letter["repository"], digest) for digest in digests]
    worst = max(images, key=lambda image: failures[image] + killed[image])
    sent = datetime.fromisoformat(letter["sent_at"]).timestamp()
    meanwhile = sum(at >= sent for at in consumer_kills)
    return Grounds(
        failures=failures[worst],
        tasks_killed=killed[worst],
        refusals=sum(line.get("attempt") is not None and not _of_the_copy(logs, line) for line in said),
        unanswered=min(3 - len(said), meanwhile) if len(said) < 3 else 0,
    )


def _of_the_copy(logs: Logs, failed: Line) -> bool:
    """Whether the reason is a copier's, which is counted as a failure already, or of a task that ended."""
    reason = failed["reason"].partition(": ")[2]
    return "the copy task ended before" in reason or any(
        line["message"] == "copy failed" and line["error"][:80] == reason[:80]
        for lines in logs.tasks.values()
        for line in lines
    )


def interruptions(logs: Logs) -> str:
    """How many images lost their task, and how often one did in a row."""
    lines = [line for line in logs.consumer if line["message"] == "given up" and line["how"] == "interrupted"]
    images = {(line["repository"], line["digest"]) for line in lines}
    most = max((line["interruptions"] for line in lines), default=0)
    return f"{len(lines)} of {len(images)} images, at most {most} in a row"


def exceptions(logs: Logs) -> Counter[str]:
    """Last lines of the tracebacks that were logged, without what differs each time."""
    found: Counter[str] = Counter()
    for line in [*logs.consumer, *(line for lines in logs.tasks.values() for line in lines)]:
        if "exception" in line:
            found[f"{line['message']}: {str(line['exception']).strip().splitlines()[-1][:160]}"] += 1
    return found
