"""MiniStack on loopback ports: the AWS API on one, every ECR registry on one of its own.

Runs in MiniStack's virtual environment, `build/ministack/bin/python -m local.cloud`, with the specification as the
first line of standard input. It ends when standard input does, so it never outlives its parent.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from local.spec import WARM_PATH, CloudSpec

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def configure(spec: CloudSpec) -> None:
    """MiniStack reads its settings from the environment when it is imported."""
    api_port = spec.told_api_port or spec.api_port
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{api_port}",  # what the Lambdas get; the tasks get GATEWAY_PORT
        BIND_HOST="127.0.0.1",
        DOCKER_HOST=spec.docker_host,
        GATEWAY_PORT=str(api_port),
        IOT_MTLS_ENABLED="0",
        LOG_LEVEL="INFO",
        MINISTACK_ACCOUNT_ID=spec.default_account,
        MINISTACK_HOST="127.0.0.1",
        MINISTACK_REGION=spec.default_region,
        SFTP_ENABLED="0",
    )


async def answer(send: Send, status: int, text: str = "") -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def warm(spec: CloudSpec, function: str, send: Send) -> None:
    """`WARM_PATH` and a function's name: starts it without invoking it; 500 says why it cannot start."""
    from local.corrections.functions import warm as start

    try:
        await asyncio.to_thread(start, spec.default_account, spec.default_region, function)
    except KeyError:
        await answer(send, 404, f"there is no function {function}")
    except RuntimeError as error:
        await answer(send, 500, str(error))
    else:
        await answer(send, 200)


def by_port(app: App, spec: CloudSpec) -> App:
    """What arrives on a registry's port gets the Host that AWS gives that registry, and finds nothing but `/v2/`."""
    ports = {registry.port: registry for registry in spec.registries}

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        registry = ports.get((scope.get("server") or ("", 0))[1])
        if scope["type"] != "http":
            await app(scope, receive, send)
        elif registry is None and scope["path"].startswith(WARM_PATH):
            await warm(spec, scope["path"].removeprefix(WARM_PATH), send)
        elif registry is None:
            await app(scope, receive, send)
        elif not scope["path"].startswith("/v2"):
            await answer(send, 404)
        else:
            headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"host"]
            await app({**scope, "headers": [*headers, (b"host", registry.aws_host.encode())]}, receive, send)

    return routed


async def serve(spec: CloudSpec) -> None:
    # Imported here: both read the environment that `configure` has just written.
    from hypercorn.asyncio import serve as hypercorn_serve
    from hypercorn.config import Config
    from ministack.app import app

    if spec.corrected:
        from local.corrections import apply

        apply(spec)
    # docker-py keeps ten connections and warns of each one more; ten tasks are watched ten times a second.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    config = Config()
    config.bind = [f"fd://{descriptor}" for descriptor in spec.listen]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)

    def watch_parent() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch_parent, daemon=True, name="parent").start()
    await hypercorn_serve(by_port(app, spec), config, shutdown_trigger=ended.wait)


def main() -> None:
    spec = CloudSpec.from_json(sys.stdin.readline())
    configure(spec)
    try:
        asyncio.run(serve(spec))
    finally:
        # MiniStack leaves its Lambda workers behind: they are of our process group, which is our parent's doing.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGTERM)
    os._exit(0)  # MiniStack's daemon threads hold no promise worth waiting for


if __name__ == "__main__":
    main()
