"""Holding the run's slot while the copier lives, and ending the copier in time when it can hold it no more."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay.ledger import Ledger, Slot
from ecr_relay.ledger.slots import LAST_WORDS_MS

RENEW_S: Final = 20.0
"""Five renewals fit into a lease, so that a ledger that is away for a minute ends nothing."""

_log = logging.getLogger(__name__)


class Lease:
    """Renews in a thread of its own until `end`; calls `on_lost` once, when the slot is lost or cannot be renewed.

    `moved`: bytes so far, which each renewal reports to whoever looks at the slots.
    """

    def __init__(
        self,
        ledger: Ledger,
        slot: Slot,
        holder: str,
        on_lost: Callable[[str], None],
        moved: Callable[[], int] = lambda: 0,
    ) -> None:
        self._ledger = ledger
        self._slot = slot
        self._holder = holder
        self._on_lost = on_lost
        self._moved = moved
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No renewal any more; the slot says that the run has ended."""
        self._ending.set()
        self._thread.join()
        self._ledger.slots.end(self._slot, self._holder)

    def _keep(self) -> None:
        while not self._ending.wait(RENEW_S):
            try:
                slot = self._ledger.slots.renew(self._slot, self._holder, self._moved())
            except (ClientError, BotoCoreError) as error:
                left = self._slot.until - LAST_WORDS_MS - self._ledger.clock()
                _log.warning("lease not renewed", extra={"error": str(error), "milliseconds_left": left})
                if left < RENEW_S * 1000:
                    self._on_lost("the ledger is out of reach and the lease is nearly over")
                    return
                continue
            if slot is None:
                self._on_lost("the slot is no longer this run's")
                return
            self._slot = slot
