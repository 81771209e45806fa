"""`ecr-relay local up`: the whole relay on this machine, until it is interrupted.

lock the state folder -> MiniStack and engine start | template is synthesized -> deploy -> endpoints -> watch -> end
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from ecr_relay.config import EcrSource, OciSource, RelayConfig, parse
from ecr_relay.config.authorities import ca_bundle
from ecr_relay.errors import ConfigError
from local import logins
from local.deploy import ROOT, Assembly, Clients, DeployError, deploy, synthesize, warm
from local.servers import LocalError, Place, Proxies, Servers, servers

ENDPOINTS: Final = "endpoints.json"
LOCK: Final = "lock"

DEFAULT_CONFIG: Final = """\
# What `ecr-relay local up` uses when it is given no configuration: one account, two regions, two registries.
[source]
account = "000000000000"
region = "us-east-1"

[[destinations]]
name = "west"
account = "000000000000"
region = "eu-west-1"
"""

_WATCH_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where everything is: the ready line, and `endpoints.json` in the state folder."""

    aws_endpoint_url: str
    region: str
    account_id: str
    source_registry: str
    destination_registries: dict[str, str]
    queue_url: str
    dlq_url: str
    ledger_table: str
    consumer_function: str
    reconcile_function: str
    cluster: str
    log_dir: str
    stack_name: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class LocalCloud:
    """A running local cloud. `outputs` are the stack's."""

    endpoints: Endpoints
    outputs: dict[str, str]
    config: RelayConfig
    servers: Servers

    @property
    def clients(self) -> Clients:
        """AWS clients of the relay's account and region; `servers.at` has those of others."""
        return self.servers.clients

    def check(self) -> None:
        """Raises LocalError when a process of it has ended by itself."""
        self.servers.check()


def read_config(path: Path | None) -> tuple[str, RelayConfig]:
    """The text of a configuration and what it says. Raises ConfigError."""
    if path is None:
        return DEFAULT_CONFIG, parse(DEFAULT_CONFIG, "default configuration")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: no UTF-8 text") from None
    parsed = parse(text, str(path))
    ca_bundle(parsed.deployment, path)  # before anything is started
    return text, parsed


@contextlib.contextmanager
def local_cloud(
    state: Path | None = None,
    config: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    proxies: Proxies | None = None,
    secrets: Path | None = None,
) -> Iterator[LocalCloud]:
    """Start it, and end it when the block does, however that ends. `say` gets the progress.

    `state` is a new folder or one of an earlier run, and keeps the logs until its next; without it they are in a folder
    below `build/local` that goes at the end. `secrets` is a file for `logins.read`. Raises ConfigError before anything
    is started, DeployError, and LocalError, also for a `state` that is in use.
    """
    text, parsed = read_config(config)
    values = logins.read(secrets, parsed)
    with contextlib.ExitStack() as stack:
        if state is None:
            (ROOT / "build" / "local").mkdir(parents=True, exist_ok=True)
            state = Path(tempfile.mkdtemp(dir=ROOT / "build" / "local"))
            stack.callback(shutil.rmtree, state, ignore_errors=True)
        state = state.resolve()
        stack.enter_context(_locked(state))
        _clean(state)
        shutil.rmtree(state / "logs", ignore_errors=True)
        stack.callback(_clean, state)
        say("starting MiniStack and the task engine")
        home = parsed.home
        source = _ecr_place(parsed)
        destinations = [(one.account, one.region) for one in parsed.destinations]
        running = stack.enter_context(servers(state, source, destinations, home=home, proxies=proxies))
        (state / "relay.toml").write_text(text, encoding="utf-8")
        try:
            _lay_ground(parsed, values, running, say)
            cloud = _deploy(state, text, config, parsed, running, say)
        except (BotoCoreError, ClientError, HTTPError) as error:
            running.check()
            raise LocalError(f"MiniStack does not answer as it should: {error}; see {state / 'logs'}") from None
        _write_atomically(state / ENDPOINTS, cloud.endpoints.to_json() + "\n")
        yield cloud


def main(state: Path | None, config: Path | None, secrets: Path | None = None) -> int:
    """The command: prints the endpoints as one line of JSON when all is ready. Returns the exit status."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {text}", file=sys.stderr, flush=True)

    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with local_cloud(state, config, say, secrets=secrets) as cloud:
            try:
                print(cloud.endpoints.to_json(), flush=True)
                say(_ready(cloud))
                while True:
                    time.sleep(_WATCH_SECONDS)
                    cloud.check()
            finally:
                for number in handlers:  # a second Ctrl-C must not leave half of it running
                    signal.signal(number, signal.SIG_IGN)
    except KeyboardInterrupt:
        say("ended")
        return 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (LocalError, DeployError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _ready(cloud: LocalCloud) -> str:
    where = f"ready; push to {cloud.endpoints.source_registry}"
    if isinstance(cloud.config.source, OciSource):
        where += f", which is asked every {cloud.config.source.poll_minutes} minutes, or at once by `ecr-relay sync`"
    return f"{where}; interrupt to end"


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Hold the folder for this process; the system lets go of it however we end. Raises LocalError when it is held,
    and for a folder of somebody else's.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        if not (state / LOCK).exists() and any(
            state.iterdir()
        ):  # what is below `tmp` and `logs` there, we would delete
            raise LocalError(
                f"{state} is not empty, and no state of an earlier `ecr-relay local up`; name a new folder"
            )
        lock = (state / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise LocalError(f"{state}: cannot be used for state: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LocalError(
                f"{state} is in use by another `ecr-relay local up` (process {lock.read().strip() or '?'}); "
                "end that one, or name another --state"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _clean(state: Path) -> None:
    """What must not outlive a run: endpoints that nobody answers at, temporary files, tasks' homes."""
    (state / ENDPOINTS).unlink(missing_ok=True)
    for folder in ("tmp", "tasks"):
        shutil.rmtree(state / folder, ignore_errors=True)


def _lay_ground(config: RelayConfig, secrets: Mapping[str, str], running: Servers, say: Callable[[str], None]) -> None:
    """What an account has before the stack comes, by what the configuration says of it: secrets, a cluster."""
    logins.make(secrets, running.clients.endpoint)
    for arn in logins.named(config).keys() - secrets.keys():
        say(f"nothing is in the secret {arn}: give a file with it by --secrets")
    if config.deployment.cluster:
        running.clients("ecs").create_cluster(clusterName=config.deployment.cluster)


def _deploy(
    state: Path, text: str, file: Path | None, config: RelayConfig, running: Servers, say: Callable[[str], None]
) -> LocalCloud:
    logs = state / "logs"
    say("synthesizing the template")
    assembly = Assembly.read(synthesize(text, logs / "synth.log", file=file))
    running.check()
    say("deploying it")
    clients = running.clients
    outputs = deploy(assembly, clients)
    say("starting the consumer")
    warm(clients, outputs["ConsumerFunction"])
    source = _ecr_place(config)
    if source is not None and source != running.home:
        say("deploying what forwards it the pushes")
        deploy(Assembly.read(synthesize(text, logs / "synth.log", forwarder=True)), running.at(source))
    endpoints = Endpoints(
        aws_endpoint_url=clients.endpoint,
        region=clients.region,
        account_id=clients.account,
        source_registry=_source_host(config, running),
        destination_registries={
            one.name: running.registry((one.account, one.region)).host for one in config.destinations
        },
        queue_url=outputs["QueueUrl"],
        dlq_url=outputs["DeadLetterQueueUrl"],
        ledger_table=outputs["LedgerTable"],
        consumer_function=outputs["ConsumerFunction"],
        reconcile_function=outputs["ReconcileFunction"],
        cluster=outputs["Cluster"],
        log_dir=str(logs),
        stack_name=config.deployment.stack_name,
    )
    return LocalCloud(endpoints, outputs, config, running)


def _ecr_place(config: RelayConfig) -> Place | None:
    """Where the source is, if it is an ECR registry, and so one of ours; another kind runs by itself."""
    return (config.source.account, config.source.region) if isinstance(config.source, EcrSource) else None


def _source_host(config: RelayConfig, running: Servers) -> str:
    if isinstance(config.source, OciSource):
        return config.source.host
    return running.registry((config.source.account, config.source.region)).host


def _write_atomically(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
