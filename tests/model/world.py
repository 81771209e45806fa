"""The whole relay in one process: real decide, launch, supervise, reap, copy, converge and reconcile code.

Around it are a table, registries, skopeo, ECS and a queue in memory, and a clock. Whatever the code calls outside
passes `_on_call`, where an operation may be interrupted: it crashes, is throttled, loses an answer, or other operations
happen meanwhile. So every schedule of crashes and races that a program of operations can say is tried on one thread.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

from botocore.exceptions import ClientError

from ecr_relay.config import RelayConfig
from ecr_relay.consume import Delivery, consume
from ecr_relay.consume.reap import Reaper
from ecr_relay.copy import Copier
from ecr_relay.errors import Transient
from ecr_relay.ledger import Job, Ledger, Run, Slot, slots
from ecr_relay.ledger.digests import INTERRUPTIONS
from ecr_relay.manifests import Manifest
from ecr_relay.messages import Envelope
from ecr_relay.queues import wait_seconds
from ecr_relay.reconcile import Reconciler, Request
from ecr_relay.relay import Relay
from ecr_relay.tasks import LaunchRefused, LaunchUnknown, TaskState
from tests.fakes.registry import FakeRegistry
from tests.fakes.skopeo import FakeSkopeo
from tests.fakes.table import FakeTable
from tests.fakes.tasks import FakeTasks, arn_of

ACCOUNT, REGION = "000000000000", "us-east-1"
CONFIG = RelayConfig.model_validate_json(
    json.dumps(
        {
            "source": {"region": REGION, "account": ACCOUNT},
            "destinations": [{"name": "west", "region": "eu-west-1", "account": ACCOUNT}],
        }
    )
)
PUT_IMAGE_PER_SECOND = 0.2
"""Under quota pressure: a put takes five seconds' worth, and a few of them make the next wait in vain."""
FUNCTION_S, VISIBILITY_S, SUPERVISE_S, RECEIVES = 300, 360, 240, 3


_TELLING = ("SendMessage", "ChangeMessageVisibility", "PutItem")
"""What a function calls to say what became of a message: refused, the message comes back, and a receive is used up."""


class Crash(BaseException):
    """The process is gone: nothing of ours may catch this."""


@dataclass
class Interruption:
    """What happens at the `at`th outside call of an operation."""

    at: int
    what: str
    meanwhile: Callable[[], None] = lambda: None


@dataclass
class Frame:
    """One process at work: a Lambda invocation, or a copy task."""

    interruption: Interruption | None
    deadline: int | None = None
    task: str | None = None
    """The run that it is the task of; None for a function."""
    calls: int = 0
    slot: Slot | None = None
    holder: str = ""
    frozen: bool = False


@dataclass
class Message:
    id: str
    body: str
    sent_at: int
    visible_at: int
    receives: int = 0


class ModelQueue:
    """SQS with redrive: a message that was received RECEIVES times and comes back is a dead letter."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.messages: dict[str, Message] = {}
        self.dead: list[Message] = []

    def put(self, body: str, delay: float = 0) -> None:
        now = self._world.clock()
        identity = f"m{self._world.number()}"
        self.messages[identity] = Message(identity, body, now, now + int(delay * 1000))

    def receive(self, most: int) -> list[Message]:
        now = self._world.clock()
        found: list[Message] = []
        for message in list(self.messages.values()):
            if message.visible_at > now or len(found) == most:
                continue
            if message.receives >= RECEIVES:
                self.dead.append(self.messages.pop(message.id))
                continue
            message.receives += 1
            message.visible_at = now + VISIBILITY_S * 1000
            found.append(message)
        return found

    # What the relay calls of CopyQueue

    def send(self, envelopes: list[Envelope]) -> int:
        new = list(envelopes)
        for envelope in new:
            self._world.on_call("SendMessage")
            self.put(envelope.body())
        return len(new)

    def defer(self, envelope: Envelope, now: int) -> int:
        self._world.on_call("SendMessage")
        delay = wait_seconds(envelope.lane, (now - envelope.first_seen) / 1000)
        self.put(envelope.deferred(now).body(), delay)
        return delay

    def repeat(self, body: str) -> int:
        self._world.on_call("SendMessage")
        self.put(body, 45)
        return 45

    def hide(self, receipt_handle: str, seconds: int) -> None:
        self._world.on_call("ChangeMessageVisibility")
        if receipt_handle in self.messages:
            self.messages[receipt_handle].visible_at = self._world.clock() + seconds * 1000

    def waiting(self) -> int:
        return len(self.messages)


class ModelTasks(FakeTasks):
    """ECS; a launch may be throttled, or lose its answer, by an interruption."""

    world: "World"

    def launch(self, run: str) -> str:
        try:
            lost = self.world.on_call("RunTask")
        except ClientError as error:
            raise LaunchRefused(f"RunTask: {error}", passing=True) from error
        arn = super().launch(run)
        if lost:
            raise LaunchUnknown("RunTask: read timeout")
        return arn

    def states(self, arns: object) -> dict[str, TaskState]:
        self.world.on_call("DescribeTasks")
        return super().states(arns)  # type: ignore[arg-type]

    def of_run(self, run: str) -> str | None:
        self.world.on_call("ListTasks")
        return super().of_run(run)


class World:
    """`consumer_ms` and `copier_ms`: how far their clocks are ahead of SQS's. `scarce`: PutImage has little quota."""

    def __init__(self, consumer_ms: int = 0, copier_ms: int = 0, *, scarce: bool = False) -> None:
        self.now = 1_800_000_000_000
        self._ahead_ms = {"consumer": consumer_ms, "copier": copier_ms}
        self._numbers = 0
        self._frames: list[Frame] = []
        self.table = FakeTable()
        self.table.hook = self.on_call
        self.ledger = Ledger(self.table, self.clock, self.tick)  # type: ignore[arg-type]
        (west,) = CONFIG.destinations
        if scarce:
            west = west.model_copy(update={"put_image_per_second": PUT_IMAGE_PER_SECOND})
        self.relay = Relay(CONFIG.model_copy(update={"destinations": (west,)}), self.ledger)
        self.source = ModelRegistry(self, "source.test")
        self.west = ModelRegistry(self, "west.test")
        self.relay.source = self.source
        self.relay._destinations["west"] = self.west
        self.skopeo = FakeSkopeo({"source.test": self.source, "west.test": self.west})
        self.skopeo.during = self._copying
        self.queue = ModelQueue(self)
        self.tasks = ModelTasks(self._copier, at_once=False)
        self.tasks.world = self
        self.copying: list[str] = []
        self._running: set[str] = set()
        self.unsure: set[str] = set()
        """Repositories of which an event was lost, or that were tampered with: only the reconcile heals them."""
        self.lasting: dict[str, Frame] = {}
        """Copies that last: their processes live, by run."""
        self.calls = 0
        self.faults = 0
        """What uses up an attempt or a receive: functions that died, calls of theirs or of a registry that were
        refused, tasks that could not be started. Waiting, racing and lost answers are none."""
        self.kills = 0
        """Tasks that ended and left no outcome: that is no attempt."""

    # Time

    def clock(self) -> int:
        """Of whoever is at work now."""
        self.now += 1
        if not self._frames:
            return self.now
        return self.now + self._ahead_ms["copier" if self._frames[-1].task else "consumer"]

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def tick(self, seconds: float) -> None:
        """Time passes; processes that live renew their leases meanwhile, as their threads do."""
        frames, self._frames = self._frames, []
        lasting = list(self.lasting.values())
        try:
            while seconds > 0:
                step = min(20.0, seconds)
                seconds -= step
                self.now += int(step * 1000)
                for frame in (*frames, *lasting):
                    if frame.slot is not None and not frame.frozen and not self._stopped(frame):
                        self._renew(frame)
        finally:
            self._frames = frames

    def _renew(self, frame: Frame) -> None:
        """Its lease's own thread, by its own clock: no call of it is interrupted."""
        assert frame.slot is not None
        self._frames = [Frame(None, task=frame.task)]
        try:
            frame.slot = self.ledger.slots.renew(frame.slot, frame.holder)
        finally:
            self._frames = []

    # Processes

    def on_call(self, name: str) -> bool:
        """Before each outside call. True: its answer is lost."""
        if not self._frames:
            return False
        frame = self._frames[-1]
        frame.calls += 1
        self.calls += 1
        if self._stopped(frame) or (frame.deadline is not None and self.now > frame.deadline):
            raise Crash
        interruption = frame.interruption
        if interruption is None or frame.calls != interruption.at:
            return False
        frame.interruption = None
        match interruption.what:
            case "crash":
                raise Crash
            case "throttle":
                # Of the ledger and ECS: waiting for a function, an interruption for a task. But telling may fail, too.
                if name in ("registry", "skopeo") or (frame.task is None and name in _TELLING):
                    self.faults += 1
                self._throttled(name)
            case "lose":
                self.faults += name == "registry"
                return name in ("PutItem", "UpdateItem", "DeleteItem", "RunTask", "registry")
            case "meanwhile" | "frozen":
                frame.frozen = interruption.what == "frozen"
                interruption.meanwhile()
                frame.frozen = False
                if self._stopped(frame) or (frame.deadline is not None and self.now > frame.deadline):
                    raise Crash
        return False

    @staticmethod
    def _throttled(name: str) -> None:
        if name in ("registry", "skopeo"):
            raise Transient("toomanyrequests: Rate exceeded")
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, name)

    def _stopped(self, frame: Frame) -> bool:
        return frame.task is not None and self.tasks.started[arn_of(frame.task)].over

    def _process(self, frame: Frame, work: Callable[[], None]) -> bool:
        """Whether it came to its end, and did not crash."""
        self._frames.append(frame)
        try:
            work()
        except (Crash, ClientError, Transient) as error:
            if frame.task is not None:
                self.kills += 1
            elif isinstance(error, Crash):
                self.faults += 1
            return False
        finally:
            self._frames.pop()
            self.check()
        return True

    def deliver(self, most: int, interruption: Interruption | None = None, seconds: float = SUPERVISE_S) -> bool:
        """One invocation of the consumer; whether there was a message."""
        messages = self.queue.receive(most)
        if not messages:
            return False
        deliveries = [Delivery(m.id, m.id, m.body, m.sent_at, m.receives) for m in messages]
        failed: list[str] = []

        def work() -> None:
            failed.extend(
                consume(deliveries, self.relay, self.queue, self.tasks, seconds, self._sleep)  # type: ignore[arg-type]
            )

        frame = Frame(interruption, deadline=self.now + FUNCTION_S * 1000)
        if self._process(frame, work):
            for message in messages:
                if message.id not in failed:
                    self.queue.messages.pop(message.id, None)
        return True

    def _sleep(self, seconds: float) -> None:
        """The consumer waits: time passes."""
        self.tick(max(seconds, 2.0))

    def run_task(self, index: int, interruption: Interruption | None = None) -> None:
        """One of the tasks that wait to be run does its work."""
        waiting = self.waiting_tasks()
        if not waiting:
            return
        run = waiting[index % len(waiting)]
        self.tasks.begin(run)
        self._running.add(run)
        frame = Frame(interruption, task=run, holder=f"holder-{self.number()}")
        copying = len(self.copying)
        if self._process(frame, lambda: self._copier(run)):
            self.tasks.end(run, "EssentialContainerExited: exit code 0")
        elif not self.tasks.started[arn_of(run)].over:
            self.tasks.end(run, "EssentialContainerExited: exit code 137")
        del self.copying[copying:]

    def waiting_tasks(self) -> list[str]:
        """Launched and not begun; those whose host vanished are never begun."""
        runs = [arn.rsplit("/", 1)[1] for arn, state in self.tasks.started.items() if state.pending]
        return [run for run in runs if run not in self._running]

    def lose_task(self, index: int, how: str) -> None:
        waiting = self.waiting_tasks()
        if not waiting:
            return
        run = waiting[index % len(waiting)]
        if how == "vanish":
            self.kills += 1
            self.tasks.begin(run)
            self._running.add(run)
        elif how == "never-started":
            self.faults += 1
            self.tasks.end(run, "TaskFailedToStart: CannotPullContainerError", started=False)
        else:
            self.tasks.end(run, "SpotInterruption", passing=True)

    def begin_to_last(self) -> str:
        """A task that waits begins its copy, which goes on for as long as nobody ends it; its run."""
        run = self.waiting_tasks()[0]
        self.tasks.begin(run)
        self._running.add(run)
        frame = self.lasting[run] = Frame(None, task=run, holder=f"holder-{self.number()}")
        frame.slot = self.ledger.slots.begin(run, frame.holder)
        return run

    def finish(self, run: str) -> None:
        """A copy that lasted is done."""
        frame = self.lasting.pop(run)
        if self._process(frame, lambda: self._copier(run)):
            self.tasks.end(run, "EssentialContainerExited: exit code 0")

    def kill(self, run: str) -> None:
        """The host of a copy that lasts is gone, and ECS knows it."""
        del self.lasting[run]
        self.kills += 1
        self.tasks.end(run, "EssentialContainerExited: exit code 137")

    def _copier(self, run_id: str) -> None:
        """What `ecr_relay.copy.__main__` does: every job, whatever became of the others; and the lease's end."""
        frame = self._frames[-1]
        frame.slot = frame.slot or self.ledger.slots.begin(run_id, frame.holder)
        run = self.ledger.runs.get(run_id)
        if frame.slot is None or run is None:
            return
        slot, failed = frame.slot, None
        destination = self.relay.config.destination(run.destination)
        copier = Copier(self.relay, run, destination, self.skopeo)  # type: ignore[arg-type]
        for job in run.jobs:
            try:
                copier.copy(job)
            except Exception as error:  # noqa: BLE001 - as a future keeps it; a Crash ends everything at once
                failed = failed or error
        self.ledger.slots.end(slot, frame.holder)
        if failed:
            raise failed

    def _copying(self, image: str) -> None:
        """In the middle of a skopeo: nobody else is at the same image, unless that one hangs."""
        assert image not in self.copying or any(frame.frozen for frame in self._frames), "copied twice at once"
        self.copying.append(image)
        self.on_call("skopeo")

    def reconcile(self, interruption: Interruption | None = None) -> None:
        def work() -> None:
            reconciler = Reconciler(self.relay, self.queue, lambda: True)  # type: ignore[arg-type]
            reconciler.run(Request())
            reconciler.run(Request(action="resume"))

        self._process(Frame(interruption, deadline=self.now + 900_000), work)

    def reconcile_to_the_end(self) -> None:
        """A full one, after whatever was begun before: the schedule resumes until there is nothing to resume."""
        self.reconcile()
        for _ in range(10):
            self.tick(300)
            reconciler = Reconciler(self.relay, self.queue, lambda: True)  # type: ignore[arg-type]
            if reconciler.run(Request(action="resume")).status == "idle":
                return
        raise AssertionError("the reconcile never comes to an end")

    # What the outside does

    def push(self, repository: str, tag: str, content: str, *, lost: bool = False) -> str:
        digest = self.source.push(repository, content, tag)
        if lost:
            self.unsure.add(repository)
        else:
            self.queue.put(self.event(repository, digest, tag))
        return digest

    def event(self, repository: str, digest: str, tag: str) -> str:
        return json.dumps(
            {
                "detail-type": "ECR Image Action",
                "source": "aws.ecr",
                "account": ACCOUNT,
                "region": REGION,
                "time": "2027-01-15T08:00:00Z",
                "detail": {
                    "result": "SUCCESS",
                    "action-type": "PUSH",
                    "repository-name": repository,
                    "image-digest": digest,
                    "image-tag": tag,
                },
            }
        )

    # What must hold

    def check(self) -> None:
        """After every step: never eleven tasks, and reconcile work holds seven slots at the most."""
        alive = [arn.rsplit("/", 1)[1] for arn in self.tasks.alive]
        assert len(alive) <= slots.SLOTS, f"{len(alive)} tasks are alive"
        runs = [Run.model_validate_json(self.table.items[f"RUN#{run}", "RUN"]["body"]) for run in alive]
        assert sum(run.lane == "reconcile" for run in runs) <= slots.RECONCILE_SLOTS
        images = [(job.repository, job.digest) for run in runs for job in run.jobs if self._claims(run, job)]
        assert len(images) == len(set(images)), "two tasks are to copy one image"

    def _claims(self, run: Run, job: Job) -> bool:
        item = self.table.items.get((run.target(job).pk, f"D#{job.digest}"), {})
        return not self._ended(run) and (item.get("status") != "copied")

    def _ended(self, run: Run) -> bool:
        held = [item for (pk, _), item in self.table.items.items() if pk == "SLOTS" and item.get("run") == run.id]
        return bool(held) and held[0]["phase"] == "ended"

    def dead_letters_are_justified(self) -> bool:
        """Three faults, or so many kills that an image might be what kills: fewer kills alone justify none."""
        return not self.queue.dead or self.faults >= RECEIVES or self.kills >= INTERRUPTIONS

    def settle(self) -> None:
        """Nothing more goes wrong: every task runs, every message is delivered, until the queue is empty."""
        for _ in range(400):
            while self.waiting_tasks():
                self.run_task(0)
            if self.deliver(10, seconds=0):
                continue
            if not self.queue.messages:
                break
            self.tick(max(1.0, (min(m.visible_at for m in self.queue.messages.values()) - self.now) / 1000 + 1))
        else:
            raise AssertionError(f"{len(self.queue.messages)} messages never come to an end")
        # Leases of tasks that vanished run out, and ECS ends what it was asked to end.
        for _ in range(3):
            self.tick(700)
            Reaper(self.ledger, self.tasks).reap()  # type: ignore[arg-type]
        assert self.ledger.slots.held() == [], "a slot is held for ever"

    def differences(self) -> dict[tuple[str, str], tuple[str, str | None]]:
        """(repository, tag) -> (source's digest, destination's), where they differ."""
        found = {}
        for repository, place in self.source.content.items():
            there = self.west.content[repository].tags if repository in self.west.content else {}
            for tag, digest in place.tags.items():
                if there.get(tag) != digest:
                    found[repository, tag] = (digest, there.get(tag))
        return found

    def dead(self) -> set[str]:
        """Repositories of dead letters."""
        repositories = set()
        for message in self.queue.dead:
            body = json.loads(message.body)
            repositories.add(body["repository"] if "v" in body else body["detail"]["repository-name"])
        return repositories


class ModelRegistry(FakeRegistry):
    """The answer that may be lost is that of a put, which has landed."""

    def __init__(self, world: World, host: str) -> None:
        super().__init__(host=host)
        self.world = world
        self._lost = False

    def _called(self, name: str) -> None:
        self._lost = self.world.on_call("registry")

    def put_manifest(self, repository: str, manifest: Manifest) -> None:
        super().put_manifest(repository, manifest)
        if self._lost:
            raise Transient("PutImage: read timeout")

    def put_tag(self, repository: str, digest: str, tag: str) -> None:
        super().put_tag(repository, digest, tag)
        if self._lost:
            raise Transient("PutImage: read timeout")
