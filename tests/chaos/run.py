"""One run: load, kills and faults together; then rest, and what must hold."""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ecr_relay.ledger.digests import INTERRUPTIONS
from local.servers import Proxies
from local.up import LocalCloud, local_cloud
from tests.chaos import evidence, load
from tests.chaos.evidence import Grounds, Logs
from tests.chaos.faults import Faults
from tests.chaos.killing import Killer, Processes
from tests.chaos.observe import Difference, Observer
from tests.chaos.plan import Plan, Where
from tests.chaos.proxy import Fault, Proxy, Request

TASKS: Final = 10
"""The promise: so many copy tasks at the most, whatever the code says."""
SUPERVISE_S: Final = 20
"""`deployment.supervise_seconds`, so that some copies outlast it."""
REST_S: Final = 900.0
"""A launch that never came holds its slot for five minutes; who had three killed consumers waits three times."""

_CONFIG: Final = """\
[source]
account = "000000000000"
region = "us-east-1"

[[destinations]]
name = "west"
account = "000000000000"
region = "eu-west-1"

[deployment]
supervise_seconds = {supervise}
reconcile_at = "{reconcile_at}"
"""


@dataclass(slots=True)
class Result:
    """What a run showed. `wrong`: a line for each thing that must not be; none, and the run is good."""

    plan: Plan
    wrong: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    justified: list[str] = field(default_factory=list)
    """Dead letters of whole images, each with what was done to it."""
    exceptions: list[str] = field(default_factory=list)
    """That were logged with a traceback, with their numbers."""


class _Mischief:
    """What a proxy asks, for one of the three."""

    def __init__(self, where: Where) -> None:
        self.where: Where = where
        self.faults: Faults | None = None
        self.killer: Killer | None = None

    def fault(self, request: Request) -> Fault | None:
        return self.faults.choose(self.where, request) if self.faults else None

    def caught(self, request: Request, *, answered: bool) -> bool:
        return self.killer is not None and self.killer.caught(self.where, request, answered=answered)


class Chaos:
    """`folder` is new; it gets `state` (logs included), `images`, `faults.jsonl` and `kills.jsonl`."""

    def __init__(self, plan: Plan, folder: Path, visibility: int, harshness: float, verbose: bool) -> None:
        self.plan = plan
        self.folder = folder
        self.visibility = visibility
        self.harshness = harshness
        self.verbose = verbose
        self.state = folder / "state"
        self.began = time.monotonic()
        self.result = Result(plan)

    def say(self, kind: str, text: str) -> None:
        if self.verbose or kind not in ("push", "move"):
            print(f"{time.monotonic() - self.began:6.1f} s  {kind:<9} {text}", flush=True)

    def run(self) -> Result:
        """Raises LocalError, DeployError and LoadError when the machine itself fails."""
        config = self.folder / "relay.toml"
        # So that the schedule's own reconcile is half a day away.
        reconcile_at = "18:00" if datetime.now(UTC).hour < 12 else "06:00"
        config.write_text(_CONFIG.format(supervise=SUPERVISE_S, reconcile_at=reconcile_at), encoding="utf-8")
        self.say("making", f"{len(self.plan.images)} images")
        made = load.build(self.plan, self.folder / "images")
        faults = Faults(
            self.plan.seed,
            self.plan.storms,
            load.slow_blobs(self.plan, made),
            self.folder / "faults.jsonl",
            self.harshness,
        )
        with contextlib.closing(faults), self._cloud(config, faults) as (cloud, mischiefs):
            self._tell_visibility(cloud)
            observer = Observer(cloud)
            killer = Killer(self._processes(cloud), self.plan.kills, self.folder / "kills.jsonl", self.say)
            for mischief in mischiefs:
                mischief.killer = killer
            loading = load.Load(self.plan, made, cloud.endpoints.source_registry, cloud.clients("ecr"), self.say)
            with _stopped_at_the_end(observer, loading, killer):
                self._go(observer, loading, killer, faults)
                self._conclude(observer, loading, killer, faults)
        return self.result

    @contextlib.contextmanager
    def _cloud(self, config: Path, faults: Faults) -> Iterator[tuple[LocalCloud, list[_Mischief]]]:
        mischiefs = [_Mischief("source"), _Mischief("west"), _Mischief("api")]
        with contextlib.ExitStack() as stack:
            proxies = []
            for mischief in mischiefs:
                mischief.faults = faults
                proxy = Proxy(mischief)
                stack.callback(proxy.close)
                proxies.append(proxy)
            source, west, api = proxies
            places = {("000000000000", "us-east-1"): source.port, ("000000000000", "eu-west-1"): west.port}
            told = Proxies(api.port, places)
            cloud = stack.enter_context(
                local_cloud(self.state, config, lambda text: self.say("cloud", text), proxies=told)
            )
            spec = cloud.servers.spec
            for registry in spec.registries:
                (source if registry.create_on_push else west).start(registry.port)
            api.start(spec.api_port)
            yield cloud, mischiefs

    def _tell_visibility(self, cloud: LocalCloud) -> None:
        sqs, url = cloud.clients("sqs"), cloud.endpoints.queue_url
        name = "VisibilityTimeout"
        template = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name]
        if self.visibility != int(template):
            sqs.set_queue_attributes(QueueUrl=url, Attributes={name: str(self.visibility)})
        self.result.figures["visibility timeout"] = f"{self.visibility} s (the template's: {template} s)"
        self.result.figures["time to supervise"] = f"{SUPERVISE_S} s (by default: 240 s)"

    @staticmethod
    def _processes(cloud: LocalCloud) -> Processes:
        pids = {child.name: child.pid for child in cloud.servers.children}
        return Processes(pids["engine"], pids["cloud"], cloud.endpoints.consumer_function)

    def _go(self, observer: Observer, loading: load.Load, killer: Killer, faults: Faults) -> None:
        self.say("begin", f"{self.plan.seconds:.0f} s of pushes, moves, kills and faults")
        faults.begin()
        observer.begin()
        killer.begin()
        loading.begin()
        last = time.monotonic()
        while loading.going_on:
            observer.check()
            time.sleep(0.2)
            if time.monotonic() - last > 15:
                last = time.monotonic()
                self._progress(observer, loading)
        killer.stop()
        faults.stop()

    def _progress(self, observer: Observer, loading: load.Load) -> None:
        visible, hidden, delayed = observer.depths()
        self.say(
            "so far",
            f"{len(loading.told)} pushed and moved; queue {visible} visible, {hidden} in flight, {delayed} delayed; "
            f"{len(observer.running())} tasks",
        )

    def _conclude(self, observer: Observer, loading: load.Load, killer: Killer, faults: Faults) -> None:
        stopped = time.monotonic()
        self.result.faults, self.result.kills = faults.counts, killer.counts
        self.say("calm", "no more faults; waiting until nothing is left to do")
        if not self._rest(observer, loading, "after the load"):
            return
        figures = self.result.figures
        figures["time to rest"] = f"{time.monotonic() - stopped:.0f} s after the last push"
        logs = self._logs(observer)
        letters = self._letters(observer)
        self._check_equal(observer, loading, logs, letters, killer)
        self._check_broken(observer, letters, logs)
        self._check_tasks(observer, logs)
        self._measure(loading, logs, letters)
        if any(not self._is_broken(letter) for letter in letters):
            self._redrive(observer, loading)
        if not self.result.wrong:
            self._reconcile(observer)

    def _rest(self, observer: Observer, loading: load.Load, after: str) -> bool:
        ends = time.monotonic() + REST_S
        while time.monotonic() < ends:
            if observer.rests(15):
                return True
            self._progress(observer, loading)
        self.result.wrong.append(
            f"no rest {after} within {REST_S:.0f} s: queue {observer.depths()}, tasks {observer.running()}, "
            f"slots {observer.owned()}"
        )
        return False

    def _logs(self, observer: Observer) -> Logs:
        endpoints = observer.cloud.endpoints
        return evidence.read(Path(endpoints.log_dir), endpoints.consumer_function)

    def _letters(self, observer: Observer) -> list[dict[str, Any]]:
        answer = observer.relay(self.state, "dlq", "list")
        letters: list[dict[str, Any]] = answer["letters"]
        return letters

    def _is_broken(self, letter: Mapping[str, Any]) -> bool:
        return (letter["repository"], letter["tag"]) in {(image.repository, image.tag) for image in self.plan.broken}

    def _check_equal(
        self, observer: Observer, loading: load.Load, logs: Logs, letters: list[dict[str, Any]], killer: Killer
    ) -> None:
        """Every tag is equal; a dead letter of a whole image excuses nothing unless tasks died of the image."""
        wrong = self.result.wrong
        broken = {(image.repository, image.tag) for image in self.plan.broken}
        tasks = observer.tasks()
        # By what ECS was told: who is killed early has logged nothing.
        killed = {tasks[one.name].run for one in killer.done if one.name in tasks}
        killed_jobs = list(observer.jobs(killed).values())
        kills = [one.at for one in killer.done if one.kill.victim == "consumer"]
        history = load.history(loading.told)
        excused = set()
        for letter in letters:
            if self._is_broken(letter):
                continue
            name = f"{letter['repository']}:{letter['tag']} {str(letter['digest'])[:19]}"
            changes = history.get((letter["repository"], letter["tag"]), [])
            digests = {letter["digest"], *(change.digest for change in changes)}
            found: Grounds = evidence.grounds(logs, letter, digests, killed_jobs, kills)
            if letter["kind"] == "malformed" or found.tasks_killed < INTERRUPTIONS:
                wrong.append(f"dead letter of a whole image: {name}: {found}; {letter}")
            else:
                excused.add((letter["repository"], letter["tag"]))
                self.result.justified.append(f"{letter['repository']}: {found}; {letter['error'] or letter['reason']}")
        differences = observer.differences()
        for difference in differences:
            key = (difference.repository, difference.tag)
            if key not in broken and key not in excused:
                wrong.append(f"lost: {difference}")
        self.result.figures["tags equal"] = f"{observer.tags() - len(differences)} of {observer.tags()}"

    def _check_broken(self, observer: Observer, letters: list[dict[str, Any]], logs: Logs) -> None:
        digests = {(line["repository"], line["tag"]): line for line in letters}
        for image in self.plan.broken:
            letter = digests.get((image.repository, image.tag))
            name = f"{image.repository}:{image.tag}"
            if letter is None:
                self.result.wrong.append(f"broken on purpose, but no dead letter: {name}")
            elif not (observer.record(image.repository, letter["digest"]).error or letter["reason"]):
                self.result.wrong.append(f"dead letter without a reason in the ledger: {name}")
        whole = {line["digest"] for line in letters if self._is_broken(line)}
        for lines in logs.tasks.values():
            for line in lines:
                permanent = line["message"] == "copy failed" and line["class"] in ("Permanent", "TagTaken")
                if permanent and line["digest"] not in whole:
                    self.result.wrong.append(f"a passing fault was taken for a permanent one: {line}")

    def _check_tasks(self, observer: Observer, logs: Logs) -> None:
        wrong, figures = self.result.wrong, self.result.figures
        tasks = observer.tasks()
        most = evidence.most_at_once(tasks.values())
        figures["tasks"] = str(len(tasks))
        text = (Path(observer.cloud.endpoints.log_dir) / "cloud.log").read_text(encoding="utf-8", errors="replace")
        figures["invocations cut off"] = str(text.count("failed processing SQS batch"))
        figures["tasks at once"] = f"{observer.most} sampled, {most} by ECS's times"
        if max(observer.most, most) > TASKS:
            wrong.append(f"{max(observer.most, most)} tasks at once")
        runs = {line["run"] for lines in logs.tasks.values() for line in lines if line["message"] == "begin"}
        ended = {task: interval.end for task, interval in tasks.items()}
        copies = evidence.copies(logs, ended, observer.jobs(runs))
        wrong += [f"two tasks at one digest: {line}" for line in evidence.overlaps(copies)]
        wrong += [f"copied again: {line}" for line in evidence.copied_again(logs)]
        figures["copies"] = str(sum(line["message"] == "copied" for lines in logs.tasks.values() for line in lines))
        figures["interruptions"] = evidence.interruptions(logs)
        for text, count in evidence.exceptions(logs).items():
            self.result.exceptions.append(f"{count} times {text}")
        strange = [line for line in logs.strange if "Traceback" in line or "Error" in line]
        wrong += [f"a program said what it should not: {line[:300]}" for line in strange[:10]]

    def _measure(self, loading: load.Load, logs: Logs, letters: list[dict[str, Any]]) -> None:
        figures = self.result.figures
        told = load.history(loading.told)
        there = evidence.arrivals(logs)
        for what, move in (("push", False), ("move", True)):
            chosen = {key: list(changes) for key, changes in told.items() if any(one.move == move for one in changes)}
            lags = evidence.lags(chosen, there)
            figures[f"lag of a {what}"] = (
                f"p50 {evidence.percentile(lags, 0.5):.1f} s, p99 {evidence.percentile(lags, 0.99):.1f} s, "
                f"most {max(lags, default=0):.1f} s ({len(lags)} of {sum(map(len, chosen.values()))})"
            )
        figures["images, moves"] = f"{len(self.plan.images)}, {sum(one.move for one in loading.told)}"
        decisions = Counter(str(line["message"]) for line in logs.consumer)
        figures["decisions"] = ", ".join(f"{name} {count}" for name, count in sorted(decisions.items()))
        broken = sum(map(self._is_broken, letters))
        figures["dead letters"] = f"{broken} of images broken on purpose, {len(letters) - broken} of whole ones"

    def _redrive(self, observer: Observer, loading: load.Load) -> None:
        answer = observer.relay(self.state, "dlq", "redrive", "--all")
        self.say("redrive", str(answer))
        if self._rest(observer, loading, "after the redrive"):
            broken = {(image.repository, image.tag) for image in self.plan.broken}
            left: list[Difference] = [one for one in observer.differences() if (one.repository, one.tag) not in broken]
            self.result.wrong += [f"lost, even after the redrive: {one}" for one in left]
            letters = [letter for letter in self._letters(observer) if not self._is_broken(letter)]
            self.result.wrong += [f"a dead letter again, with no fault left: {letter}" for letter in letters]

    def _reconcile(self, observer: Observer) -> None:
        """It finds nothing but what is broken on purpose."""
        expected = len(self.plan.broken)
        answer = observer.reconcile()
        self.say("reconcile", str(answer))
        counts = answer.get("counts", {})
        self.result.figures["reconcile"] = f"{counts.get('images')} images, {counts.get('enqueued')} enqueued"
        if answer.get("status") != "done" or counts.get("enqueued") != expected or counts.get("failures"):
            self.result.wrong.append(f"the reconcile found something else than the {expected} broken images: {answer}")


@contextlib.contextmanager
def _stopped_at_the_end(observer: Observer, loading: load.Load, killer: Killer) -> Iterator[None]:
    try:
        yield
    finally:
        for one in (loading, killer, observer):
            one.stop()


def table(result: Result) -> str:
    """For the terminal."""
    lines = [f"{name:<22} {value}" for name, value in result.figures.items()]
    lines.append(f"{'kills':<22} " + (", ".join(f"{name} {n}" for name, n in sorted(result.kills.items())) or "none"))
    places = sorted({where for where, _ in result.faults})
    for where in places:
        kinds = ", ".join(f"{kind} {n}" for (place, kind), n in sorted(result.faults.items()) if place == where)
        lines.append(f"{'faults, ' + where:<22} {kinds}")
    lines += [f"{'exceptions':<22} {text}" for text in result.exceptions]
    lines += [f"{'justified':<22} {n} dead letters: {text}" for text, n in Counter(result.justified).items()]
    return "\n".join(lines)


def fail(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
