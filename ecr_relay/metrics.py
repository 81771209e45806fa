"""What is measured: names and units, and a record that a job fills. Pure; the alarms and the dashboard read it, too.

    a job --count, sample--> Measured --rows--> the handler, which writes them by Powertools
    the copier ------------> emf()    --------> its log line, which CloudWatch takes for a metric as well

Dimensions are `stack`, and `destination` beside it for what BY_DESTINATION names: each further value of a dimension is
a metric that costs 0.30 USD a month (CloudWatch pricing), so a repository or a tag never is one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

NAMESPACE: Final = "ecr-relay"
STACK: Final = "stack"
DESTINATION: Final = "destination"


class Metric(StrEnum):
    """Counts, but for what UNITS says. Of messages, unless said otherwise."""

    # The consumer's.
    PUSHES = "pushes"
    """Events of EventBridge, each when it is received first; when it is sent `again`, not yet."""
    DROPPED = "dropped"
    """No rule wants it, or it asks nothing of us."""
    SPLIT = "split"
    """Wanted by several destinations; each gets a message of its own."""
    SKIPPED = "skipped"
    """The destination had it before."""
    COPIED = "copied"
    """By a task that was launched for it."""
    RETAGGED = "retagged"
    """Its digest was there, and got the tag."""
    JOINED = "joined"
    """It waited for a run that was copying it already, its own or another's, and found it copied."""
    ARRIVED = "arrived"
    """copied + retagged + joined; 0 in each invocation, so that no success is a value and not a gap."""
    FAILED = "failed"
    """Deliveries that failed, so up to three of a message; 0 in each invocation. `failed_…` says them by class."""
    OBSERVED = "observed"
    """A rule that copies nothing selects it, and the destination has not got it."""
    CONFLICTS = "conflicts"
    """Somebody else had moved the tag at the destination: overwritten, kept, or failed, as `on_conflict` says."""
    DEFERRED = "deferred"
    """It waits and is sent again."""
    AGAIN = "again"
    """AWS, or the configuration, did not answer the relay as it should; the message is sent again."""
    BREAKER_OPEN = "breaker_open"
    """Deferred because its destination as a whole refuses."""
    LAG = "lag"
    """Of a push: from the event to its arrival."""
    AGE = "age"
    """Of a push: from the event to each look at it that found it waiting or arrived. It grows while nothing arrives."""

    # The copier's.
    TASK_START = "task_start"
    """From RunTask to the task's first own act."""
    INTERRUPTIONS = "interruptions"
    """Tasks that were stopped before their time: SIGTERM (Spot, a deployment), or a lost lease."""

    BYTES = "bytes"
    """Written by a task's copies, as far as the system tells: looked at twice a second, so the last ones may lack."""

    # The reconcile's, once a run has ended, of the whole run; other counts of a run keep their own names.
    DIFFERENCES = "differences"
    RECONCILE_FAILURES = "reconcile_failures"
    """Repositories that could not be compared."""
    RECONCILED_REPOSITORIES = "reconciled_repositories"
    RECONCILED_IMAGES = "reconciled_images"
    RECONCILED_OBSERVED = "reconciled_observed"
    """Differences that a rule which copies nothing selects."""
    DELETED = "deleted"
    """Tags and images that were removed, after the source."""
    HELD = "held"
    """Removals that wait for `max_deletes` to be raised."""
    DIFFERING = "differing"
    """Repositories that are not as `new_repository` asks."""
    ABSENT = "absent"
    """Repositories that rules name and the source does not have."""
    EVICTED = "evicted"
    """Healed before and gone again: another policy removes them there."""
    ARCHIVED = "archived"
    """Archived there, so that they cannot be pulled."""
    # And at each of its invocations, every five minutes.
    SLOTS = "slots"
    """Slots that are taken now, of ten."""


UNITS: Final[Mapping[str, str]] = {
    Metric.LAG: "Milliseconds",
    Metric.AGE: "Milliseconds",
    Metric.TASK_START: "Milliseconds",
    Metric.BYTES: "Bytes",
}
BY_DESTINATION: Final = frozenset({Metric.LAG, Metric.ARRIVED, Metric.FAILED, Metric.BREAKER_OPEN})

FAILURES: Final = {
    "Transient": "failed_transient",
    "Permanent": "failed_permanent",
    "TagTaken": "failed_tag_taken",
    "Conflict": "failed_conflict",
    "Missing": "failed_missing",
    "RegistryDown": "failed_registry_down",
    "Malformed": "failed_malformed",
}
"""Class of an error -> the metric that counts it."""
UNEXPECTED: Final = "failed_unexpected"
"""Of any other class: a bug."""

_OF_RECONCILE: Final = {
    "enqueued": Metric.DIFFERENCES,
    "failures": Metric.RECONCILE_FAILURES,
    "repositories": Metric.RECONCILED_REPOSITORIES,
    "images": Metric.RECONCILED_IMAGES,
    "observed": Metric.RECONCILED_OBSERVED,
}


def unit(name: str) -> str:
    return UNITS.get(name, "Count")


@dataclass(slots=True)
class Measured:
    """Samples by name, each of one destination or of none in particular."""

    _samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, name: str, value: float = 1, destination: str = "") -> None:
        of = destination if name in BY_DESTINATION else ""
        self._samples.setdefault(of, {}).setdefault(str(name), []).append(value)

    def reconciled(self, counts: Mapping[str, int]) -> None:
        """The counts of a run that has ended, whatever it counts."""
        for name, value in counts.items():
            self.add(_OF_RECONCILE.get(name, name), value)

    def rows(self) -> Iterator[tuple[str, Mapping[str, list[float]]]]:
        """(destination, samples by name); the destination is empty for what has no such dimension."""
        yield from self._samples.items()


def emf(stack: str, now: int, values: Mapping[Metric, float]) -> dict[str, object]:
    """What makes a JSON log line a metric as well: CloudWatch's embedded metric format. `now` is ms since the epoch."""
    metrics = [{"Name": str(name), "Unit": unit(name)} for name in values]
    directive = {"Namespace": NAMESPACE, "Dimensions": [[STACK]], "Metrics": metrics}
    return {
        "_aws": {"Timestamp": now, "CloudWatchMetrics": [directive]},
        STACK: stack,
        **{str(name): value for name, value in values.items()},
    }
