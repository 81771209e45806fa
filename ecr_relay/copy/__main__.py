"""The copier's entry point: `python -m ecr_relay.copy`, once in each Fargate task.

Exit status: 0 every job has its outcome in the ledger (failed ones, too), or the run is not this task's to do; 1 the
lease was lost; 2 the environment or the configuration is wrong; 143 stopped by SIGTERM.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay import logs
from ecr_relay.copy import Copier, copy_all
from ecr_relay.copy.lease import Lease
from ecr_relay.errors import ConfigError, RelayError, Transient
from ecr_relay.ledger import Ledger, Run, now_ms
from ecr_relay.metrics import Metric, emf
from ecr_relay.relay import Composer
from ecr_relay.settings import CopierSettings
from ecr_relay.skopeo import Skopeo

_log = logging.getLogger("ecr_relay.copy")


def main() -> int:
    logs.to_stdout()
    try:
        settings = CopierSettings.from_environment(os.environ)
        with tempfile.TemporaryDirectory(prefix="ecr-relay-") as directory:
            return _run(Composer(settings), settings, Skopeo(Path(directory)))
    except RelayError as error:
        _log.error("cannot begin: %s", error)
        return 2
    except (ClientError, BotoCoreError) as error:
        _log.error("AWS does not answer as it should: %s", error)
        return 1


def _run(composer: Composer, settings: CopierSettings, skopeo: Skopeo) -> int:
    ledger, run_id = composer.ledger, settings.run
    holder = uuid4().hex
    slot = ledger.slots.begin(run_id, holder)
    run = ledger.runs.get(run_id)
    if slot is None or run is None:
        _log.warning("this run is not mine to do", extra={"run": run_id})
        return 0
    now = ledger.clock()
    facts = {"run": run_id, "destination": run.destination, "jobs": len(run.jobs)}
    _log.info("begin", extra=facts | emf(settings.stack, now, {Metric.TASK_START: now - run.created_at}))
    try:
        relay = composer.relay()
        destination = relay.config.destination(run.destination)
    except (ConfigError, KeyError) as error:
        reason = f"no destination {run.destination!r} any more" if isinstance(error, KeyError) else str(error)
        _give_back(ledger, run, Transient(f"configuration: {reason}"))
        ledger.slots.end(slot, holder)
        _log.error("cannot begin: %s", reason)
        return 2
    stopper = Stopper(Copier(relay, run, destination, skopeo), settings)
    signal.signal(signal.SIGTERM, lambda *_: stopper.stop(143, "SIGTERM"))
    lease = Lease(ledger, slot, holder, lambda reason: stopper.stop(1, reason), lambda: stopper.copier.moved)
    try:
        copy_all(stopper.copier, run.jobs)
    finally:
        lease.end()
    measured = emf(settings.stack, ledger.clock(), {Metric.BYTES: stopper.copier.moved})
    _log.info("end", extra={"run": run_id, "exit_status": stopper.exit_status} | measured)
    return stopper.exit_status


def _give_back(ledger: Ledger, run: Run, error: Transient) -> None:
    """No image is to blame: the claims go, no attempt counts, and the destination is left alone for a while."""
    ledger.notes.open_breaker(run.destination, str(error))
    for job in run.jobs:
        ledger.digests.release(run.target(job), job.digest, run.id, error)


class Stopper:
    """Stops the copier once, for the first reason given; safe to call from a signal's frame."""

    def __init__(self, copier: Copier, settings: CopierSettings) -> None:
        self.copier = copier
        self._settings = settings
        self.exit_status = 0
        self._once = threading.Lock()

    def stop(self, exit_status: int, reason: str) -> None:
        if self._once.acquire(blocking=False):
            self.exit_status = exit_status
            measured = emf(self._settings.stack, now_ms(), {Metric.INTERRUPTIONS: 1})
            _log.warning("stopping: %s", reason, extra={"run": self._settings.run} | measured)
            # In a thread: what a signal has interrupted may hold the locks that stopping needs.
            threading.Thread(target=self.copier.stop, name="stop").start()


if __name__ == "__main__":
    sys.exit(main())
