"""MiniStack and the task engine, started and ended together, on free loopback ports."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.deploy import ROOT, Clients
from local.processes import Child, listen
from local.spec import CloudSpec, Registry

MINISTACK: Final = ROOT / "build" / "ministack" / "bin" / "python"
DOCKERFILE: Final = ROOT / "copier_image" / "Dockerfile"

Place = tuple[str, str]
"""Account and region."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """Ports of proxies before the API and before registries: what functions and tasks are told instead of ours.

    Who is given `Servers` calls past them. They may come to know our ports when `servers` has yielded.
    """

    api: int
    registries: Mapping[Place, int]


class LocalError(Exception):
    """The local cloud cannot start, or has stopped. `str()` is for the operator."""


@dataclass(frozen=True, slots=True)
class Servers:
    """What runs. `home` is the account and region of unsigned requests, and of the relay."""

    spec: CloudSpec
    children: tuple[Child, ...]
    home: Place

    @property
    def clients(self) -> Clients:
        return self.at(self.home)

    def at(self, place: Place) -> Clients:
        return Clients(f"http://127.0.0.1:{self.spec.api_port}", *place)

    def registry(self, place: Place) -> Registry:
        """Raises KeyError for an account and region that no registry was asked for."""
        return {(one.account, one.region): one for one in self.spec.registries}[place]

    def check(self) -> None:
        """Raises LocalError when one has ended by itself."""
        for child in self.children:
            if child.code is not None:
                raise LocalError(
                    f"the local {child.name} has ended by itself (exit status {child.code}); see {child.log}"
                )


@contextlib.contextmanager
def servers(
    state: Path,
    source: Place | None,
    destinations: Sequence[Place],
    *,
    home: Place | None = None,
    dockerfile: Path = DOCKERFILE,
    corrected: bool = True,
    proxies: Proxies | None = None,
) -> Iterator[Servers]:
    """Start them with a registry for each place, and end them, and all that they started, when the block ends.

    `state` gets `logs`, `tmp` and `tasks`. The source's registry creates repositories on push; None if the source is
    no ECR. `home` is the source's place unless it is given. Raises LocalError when MiniStack is not installed.
    """
    if sys.platform != "linux":
        raise LocalError("the local cloud runs on Linux only: its tasks end as containers do, by Linux's own means")
    if not MINISTACK.exists():
        raise LocalError(f"{MINISTACK} is missing; `make local` sets it up")
    logs, temporary = state / "logs", state / "tmp"
    for folder in (logs, temporary):
        folder.mkdir(parents=True, exist_ok=True)
    home = home or source or destinations[0]
    api, engine = listen(), listen()
    places = [source, *destinations] if source else destinations
    listening = {place: listen() for place in places}
    registries = tuple(
        Registry(
            *place,
            socket.getsockname()[1],
            create_on_push=place == source,
            told_port=proxies.registries.get(place) if proxies else None,
        )
        for place, socket in listening.items()
    )
    sockets = [api, *listening.values()]
    spec = CloudSpec(
        api_port=api.getsockname()[1],
        registries=registries,
        listen=tuple(socket.fileno() for socket in sockets),
        docker_host=f"tcp://127.0.0.1:{engine.getsockname()[1]}",
        log_dir=str(logs),
        default_account=home[0],
        default_region=home[1],
        told_api_port=proxies.api if proxies else None,
        corrected=corrected,
    )
    engine_spec = {
        "listen": engine.fileno(),
        "work_dir": str(state / "tasks"),
        "log_dir": str(logs),
        "path": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "sources": str(ROOT),
        "registries": [registry.told_host for registry in registries],
        "dockerfile": str(dockerfile),
    }
    # Their own environment, and nothing of ours: the Lambda functions inherit it from MiniStack.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
    }
    children: list[Child] = []
    with contextlib.ExitStack() as stack:
        for name, python, text, inherited in (
            ("engine", sys.executable, json.dumps(engine_spec), [engine]),
            ("cloud", str(MINISTACK), spec.to_json(), sockets),
        ):
            child = Child(
                name,
                [python, "-m", f"local.{name}"],
                spec=text,
                log=logs / f"{name}.log",
                sockets=inherited,
                environment=environment,
                folder=ROOT,
            )
            stack.callback(child.end)
            children.append(child)
        yield Servers(spec, tuple(children), home)
