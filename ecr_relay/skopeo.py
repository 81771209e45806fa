"""skopeo, the program: one process a copy, in a session of its own, watched while its bytes move.

    copy --> running --exit 0---------------> done
                |----exit other, fatal line-> the kind that `errors.classify` says
                |----killed by a signal-----> Transient
                |----no byte for a while----> ended, Transient
                `----stop()-----------------> ended, Transient

What skopeo retries by itself (429, and in newer versions a cut download) is a blob's. `--retry-times` is not given: it
would copy the whole image again, and that is SQS's, with its backoff and its three attempts.
"""

import base64
import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final, cast

from ecr_relay.errors import ConfigError, Transient, classify
from ecr_relay.registries import Login

MESSAGE_LIMIT: Final = 1000
"""Characters of a reason: it goes into the ledger, beside others."""

_STDERR_LIMIT: Final = 65_536
_TICK_SECONDS: Final = 0.5
_GRACE_SECONDS: Final = 2.0
# Go wakes its network poller through a descriptor, some bytes a second while all else stands still: no progress yet.
_PROGRESS_BYTES: Final = 16_384

# What skopeo may see of our environment: in Fargate the rest tells where credentials are to be had.
_ENVIRONMENT: Final = (
    *("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "CONTAINERS_REGISTRIES_CONF"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
_FATAL: Final = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*"|\S+)')
# Layers are fetched from signed URLs, whose query is a credential; an upload's carries the registry's state.
_QUERY: Final = re.compile(r'(https?://[^\s"\\?]+)\?[^\s"\\]+')
_USERINFO: Final = re.compile(r"(https?://)[^/\s\"@]+@")


class Skopeo:
    """Copies images by digest. One object a task: the copies share its logins and its blob-info cache.

    `directory` becomes private (0700). A copy that moves no byte for `stall_seconds` is ended, and so is one that takes
    `command_timeout_seconds`, whatever it does. Raises ConfigError when there is no skopeo.
    """

    def __init__(
        self,
        directory: Path,
        *,
        stall_seconds: float = 300,
        command_timeout_seconds: int = 7 * 86_400,
        executable: str = "skopeo",
    ) -> None:
        found = shutil.which(executable)
        if not found:
            raise ConfigError(f"{executable} is not installed: it is a package of Debian, Fedora, Alpine and Homebrew")
        found = str(Path(found).absolute())  # it is started in another folder
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._directory = directory
        self._authfile = directory / "auth.json"
        self._stall_seconds = stall_seconds
        self._command_timeout_seconds = command_timeout_seconds
        self._program = [found]
        if setpriv := shutil.which("setpriv"):  # util-linux: so that skopeo does not outlive a copier that is killed
            self._program = [setpriv, "--pdeathsig", "KILL", "--", found]
        self._environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        # The blob-info cache, from which skopeo knows what it can mount: $XDG_DATA_HOME/containers/cache, but for root
        # /var/lib/containers/cache, unless told that root is only a user's mapping.
        self._environment |= {"XDG_DATA_HOME": str(directory), "TMPDIR": str(directory)}
        if os.geteuid() == 0:
            self._environment["_CONTAINERS_ROOTLESS_UID"] = "65534"
        # Re-entrant, since a signal handler that calls stop() runs in a thread that may hold it.
        self._lock = threading.RLock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._logins: dict[str, Login] = {}
        self.login({})

    def login(self, logins: Mapping[str, Login | None]) -> None:
        """Replace all logins, by registry host; copies that run keep what they read. None or absent is anonymous."""
        with self._lock:
            self._logins = {host: login for host, login in logins.items() if login}
            auths = {host: {"auth": _basic(login)} for host, login in self._logins.items()}
            new = self._authfile.with_suffix(".new")
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump({"auths": auths}, file)
            new.replace(self._authfile)

    def copy(
        self,
        source: str,
        digest: str,
        destination: str,
        on_progress: Callable[[int], None] | None = None,
        *,
        plain_http: bool = False,
        ca_certificate: str | None = None,
    ) -> None:
        """Copy `digest`, all children of an index included, from `host/repository` to `host/repository`, without a tag.

        `plain_http`: the source has no TLS; `ca_certificate`: PEM text of the authority that signed the source's.
        `on_progress` is called while bytes move, with those written so far (on Linux). Raises the CopyError that
        skopeo's message is, and Transient for what has none. Several threads may copy at once.
        """
        command = [
            *self._program,
            f"--command-timeout={self._command_timeout_seconds}s",
            *("copy", "--quiet", "--all", "--preserve-digests", "--remove-signatures"),
            *self._credentials("src", source),
            *self._credentials("dest", destination),
            *(("--src-tls-verify=false",) if plain_http else ()),
            *((f"--src-cert-dir={self._cert_dir(ca_certificate)}",) if ca_certificate else ()),
            f"docker://{source}@{digest}",
            f"docker://{destination}@{digest}",
        ]
        with self._lock:
            if self._stopped:
                raise Transient("stopped")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd=self._directory,
                start_new_session=True,
            )
            self._running.add(process)
        try:
            output = self._watch(process, on_progress)
        finally:
            _end(process)
            with self._lock:
                self._running.discard(process)
            if process.stderr:
                process.stderr.close()
        if process.returncode == 0:
            return
        if self._stopped:
            raise Transient("stopped")
        if process.returncode < 0:
            raise Transient(f"skopeo was killed by signal {-process.returncode}")
        message = self._redacted(_reason(output) or f"skopeo ended with exit status {process.returncode}")
        raise classify(message)(_shortened(message))

    def stop(self) -> None:
        """End every copy that runs and refuse new ones. For signal handlers and other threads; returns at once."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _signal(process, signal.SIGTERM)

    def _cert_dir(self, certificate: str) -> Path:
        """With one `*.crt`, which is believed beside the system's (containers-certs.d(5))."""
        folder = self._directory / "certificates"
        with self._lock:
            folder.mkdir(exist_ok=True)
            (folder / "ca.crt").write_text(certificate)
        return folder

    def _credentials(self, side: str, name: str) -> tuple[str, ...]:
        # Said for each side, so that a developer's ~/.docker/config.json is never asked instead.
        known = name.partition("/")[0] in self._logins
        return (f"--{side}-authfile", str(self._authfile)) if known else (f"--{side}-no-creds",)

    def _watch(self, process: "subprocess.Popen[bytes]", on_progress: Callable[[int], None] | None) -> str:
        """Wait for its end; returns the end of what it wrote to stderr. Raises Transient when it ended it."""
        stderr = cast("IO[bytes]", process.stderr).fileno()
        os.set_blocking(stderr, False)
        tail = b""
        started = progressed = time.monotonic()
        seen = 0
        with selectors.DefaultSelector() as selector:
            selector.register(stderr, selectors.EVENT_READ)
            while process.poll() is None:
                if selector.get_map():
                    if selector.select(_TICK_SECONDS):
                        chunk = os.read(stderr, _STDERR_LIMIT)
                        tail = (tail + chunk)[-_STDERR_LIMIT:]
                        if not chunk:
                            selector.unregister(stderr)
                else:
                    _wait(process, _TICK_SECONDS)
                now = time.monotonic()
                if self._stopped:
                    raise Transient("stopped")
                if now - started > self._command_timeout_seconds + 60:  # skopeo's own timeout comes first
                    raise Transient(f"skopeo did not end after {self._command_timeout_seconds} s, and was ended")
                moved = _bytes_moved(process.pid)
                if moved is None:
                    progressed = now  # not known here, or it has just ended
                elif sum(moved) >= seen + _PROGRESS_BYTES:
                    seen, progressed = sum(moved), now
                    if on_progress:
                        on_progress(moved[1])
                elif now - progressed > self._stall_seconds:
                    raise Transient(f"no byte moved for {self._stall_seconds:g} s, and skopeo was ended")
        while chunk := _read_now(stderr):
            tail = (tail + chunk)[-_STDERR_LIMIT:]
        return tail.decode(errors="replace")

    def _redacted(self, message: str) -> str:
        for login in self._logins.values():
            for secret in filter(None, (_basic(login), login.password)):
                message = message.replace(secret, "***")
        return _USERINFO.sub(r"\1***@", _QUERY.sub(r"\1?…", message))


def _basic(login: Login) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _reason(output: str) -> str:
    """The message of the fatal line that logrus wrote; failing that, the last line."""
    fatal = _FATAL.findall(output)
    if not fatal:
        return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    text = str(fatal[-1])
    if text.startswith('"'):  # Go's %q
        text = text[1:-1].encode("latin-1", "backslashreplace").decode("unicode_escape")
    return text


def _shortened(message: str) -> str:
    """Without its middle if it is too long: the begin tells where, the end tells why."""
    message = " ".join(message.split())
    if len(message) <= MESSAGE_LIMIT:
        return message
    return f"{message[: MESSAGE_LIMIT // 2 - 3]} … {message[-MESSAGE_LIMIT // 2 :]}"


def _bytes_moved(pid: int) -> tuple[int, int] | None:
    """Bytes that a process read and wrote so far, sockets included; None where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return None
    values = dict(line.split(": ") for line in text.splitlines())
    return int(values["rchar"]), int(values["wchar"])


def _read_now(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _STDERR_LIMIT)
    except BlockingIOError:
        return b""


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """To the whole process group, which is its own."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended in between
            os.killpg(process.pid, number)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End it, politely first, and leave no zombie. Does nothing when it has ended."""
    _signal(process, signal.SIGTERM)
    if not _wait(process, _GRACE_SECONDS):
        _signal(process, signal.SIGKILL)
        process.wait()
