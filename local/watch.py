"""What happens on the local cloud, as it happens: events from the bus, decisions, tasks and copies from the logs."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from local.up import LocalCloud

Say = Callable[[str, str], None]
"""(kind, text): one line of what happened."""

_PERIOD_S: Final = 0.2
_TASK_LOG: Final = re.compile(r"^[0-9a-f]{8}-[0-9a-f-]+\.log$")


class Watch:
    """Tells `say` until it is closed, and counts the kinds: `counts["task"]` is how many copy tasks were begun."""

    def __init__(self, cloud: LocalCloud, say: Say) -> None:
        self._say = say
        self.counts: Counter[str] = Counter()
        self._logs = Path(cloud.endpoints.log_dir)
        self._read: dict[Path, int] = {}
        self._sqs = cloud.clients("sqs")
        self._queue = self._listen(cloud)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        self._look()

    def _listen(self, cloud: LocalCloud) -> str:
        """A queue beside the relay's, by a rule of its own: the same events, as EventBridge delivers them."""
        events = cloud.clients("events")
        queue: str = self._sqs.create_queue(QueueName="watch")["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
        events.put_rule(Name="watch", EventPattern=json.dumps({"source": ["aws.ecr"]}))
        events.put_targets(Rule="watch", Targets=[{"Id": "watch", "Arn": attributes["QueueArn"]}])
        return queue

    def _run(self) -> None:
        while not self._closing.wait(_PERIOD_S):
            self._look()

    def _look(self) -> None:
        answer = self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10)
        for message in answer.get("Messages", []):
            self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
            self._event(json.loads(message["Body"]))
        lines = [entry for path in sorted(self._logs.glob("*.log")) for entry in self._new_lines(path)]
        for entry in sorted(lines, key=_when):
            self._line(entry)

    def _new_lines(self, path: Path) -> list[dict[str, Any]]:
        if not (path.name.startswith("lambda-") or _TASK_LOG.match(path.name)):
            return []
        with path.open("rb") as log:
            log.seek(self._read.get(path, 0))
            content = log.read()
        whole, newline, _ = content.rpartition(b"\n")
        self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
        entries = []
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "timestamp" in entry:
                entries.append(entry)
        return entries

    def _event(self, event: dict[str, Any]) -> None:
        detail = event["detail"]
        tag = detail.get("image-tag") or "(no tag)"
        self._tell(
            "event", f"{detail['action-type']} {detail['repository-name']}:{tag} {short(detail['image-digest'])}"
        )

    def _line(self, entry: dict[str, Any]) -> None:
        image = f"{entry.get('repository', '')}:{entry.get('tag') or short(entry.get('digest') or '')}"
        match entry["message"]:
            case "dropped" | "skipped" | "joined" | "retagged" | "deferred" | "split" as what:
                self._tell("decision", f"{image} {what}: {entry['reason']}", what)
            case "launched":
                self._tell("decision", f"{image} copy, run {entry['run'][:8]}", "launched")
            case "failed":
                back = "given up" if entry.get("attempt") is None else f"again in {entry['seconds']} s"
                self._tell("failure", f"{image} {back}: {entry['reason'][:160]}")
            case "begin":
                self._tell("task", f"run {entry['run'][:8]} begins")
            case "copied" if "milliseconds" in entry:
                self._tell("copy", f"{image} in {entry['milliseconds'] / 1000:.2f} s")
            case "tag":
                self._tell("tag", f"{image} {entry['outcome'].lower()} {short(entry['digest'] or '')}")
            case "reconciled":
                self._tell(
                    "reconcile", f"{entry['repository']}: {entry['images']} image(s), {entry['enqueued']} enqueued"
                )

    def _tell(self, kind: str, text: str, what: str = "") -> None:
        self.counts[what or kind] += 1
        self._say(kind, text)


def short(digest: str) -> str:
    """The first 12 digits: enough for a reader."""
    return digest.removeprefix("sha256:")[:12]


def _when(entry: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(str(entry["timestamp"]).replace(",", ".")).astimezone(UTC)
