"""The composition: from a program's settings to the configuration, the ledger and the registries it works with."""

import logging
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from ecr_relay import credentials, rules
from ecr_relay.config import Destination, RelayConfig
from ecr_relay.converge import Place
from ecr_relay.errors import ConfigError
from ecr_relay.images import Listed
from ecr_relay.ledger import Ledger, Target, now_ms, open_table
from ecr_relay.registries import Registry, Writable
from ecr_relay.rules import Selection
from ecr_relay.settings import CommonSettings

_log = logging.getLogger(__name__)

BOUNDED: Final = Config(connect_timeout=2, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 3})
"""Of AWS's control plane: botocore's own minute a try would outlast an invocation."""
CONFIG_AGE_S: Final = 60
"""How long a function works by a configuration before it reads the parameter again."""
RENEW_S: Final = 1.0
"""How often the parameter is read at the most because a message is newer than the configuration."""
_CLOCKS_MS: Final = 1000
"""How far SQS's clock and ours may be apart."""


class Relay:
    """One configuration at work. Registries are made when they are needed first, and kept."""

    def __init__(self, config: RelayConfig, ledger: Ledger) -> None:
        self.config = config
        self.ledger = ledger
        self._destinations: dict[str, Writable] = {}

    @cached_property
    def source(self) -> Registry:
        return credentials.registry(self.config.source)

    def destination(self, destination: Destination) -> Writable:
        if destination.name not in self._destinations:
            self._destinations[destination.name] = credentials.registry(destination)
        return self._destinations[destination.name]

    def target(self, destination: Destination, repository: str) -> Target:
        return Target(self.config.source.id, destination.name, repository)

    def repositories(self) -> list[str]:
        """Sorted: those of the source that a rule may select, and those that rules name, which it may not have.

        Raises CopyError if rules do not only name some, and the source cannot be listed.
        """
        listed = () if rules.only_name(self.config) else self.source.repositories()
        return sorted(name for name in rules.named(self.config).union(listed) if rules.concerns(self.config, name))

    def following(
        self, destination: Destination, repository: str, digest: str, tags: Iterable[str] = ()
    ) -> Selection | None:
        """How what refers to `digest` goes to `destination`; None: not at all.

        As the digest itself does, by its tags at the source (`tags`, where the source cannot tell them); else as what
        the digest refers to. The source is asked only where rules disagree. Raises CopyError if it does not answer.
        """
        usual = next((one for one in rules.referring(self.config, repository) if one.destination == destination), None)
        if usual is None or rules.are_of_one_mind(self.config, destination, repository):
            return usual
        known: set[str] = set()
        about: str | None = digest
        while about is not None and about not in known:
            known.add(about)
            lines = self.source.lines(repository, about) or tuple(Listed(tag, digest) for tag in tags)
            ways = (
                rules.selections(self.config, repository, one.tag)
                for one in lines
                if one.tag is not None or one.subject is None
            )
            how = rules.most(one for way in ways for one in way if one.destination == destination)
            if how is not None:
                return how if how.rule.referrers else None
            about = next((one.refers_to for one in lines if one.refers_to), None)
        return usual

    def place(self, destination: Destination, repository: str) -> Place:
        return Place(
            source=self.source,
            source_repository=repository,
            destination=self.destination(destination),
            destination_repository=destination.repository(repository),
            settings=destination,
            target=self.target(destination, repository),
        )


class Composer:
    """Keeps a Relay up to date with the configuration in the SSM parameter."""

    def __init__(self, settings: CommonSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self._parameter = settings.config_parameter
        self._ssm = boto3.client("ssm", config=BOUNDED)
        self.ledger = Ledger(open_table(settings.ledger_table))
        self._sleep = sleep
        self._text = ""
        self._tried_at = self._read_at = float("-inf")
        self._read_ms = 0  # as _read_at, by the clock on the wall
        self._relay: Relay | None = None

    def relay(self, age: float = CONFIG_AGE_S) -> Relay:
        """By the parameter as it is now, or was `age` seconds ago at the most; by the last good one if it cannot be
        read.

        Raises ConfigError when there was none.
        """
        if self._relay is not None and time.monotonic() - self._tried_at <= age:
            return self._relay
        try:
            return self._renewed()
        except ConfigError:
            if self._relay is None:
                raise
            _log.exception("the configuration cannot be read; going on by the last one")
            return self._relay

    def relay_since(self, sent_at: int, received: float) -> Relay:
        """By rules that are no older than a message that SQS was sent at `sent_at` (ms since the epoch), and that was
        here by `received` (time.monotonic): what was published before a push counts for it.

        Waits, for RENEW_S at the most, rather than read the parameter more often. One that holds no configuration
        leaves the last good one in force. Raises ConfigError if it cannot be read.
        """
        if self._relay is not None and (self._read_at >= received or self._read_ms - _CLOCKS_MS > sent_at):
            return self._relay
        self._sleep(max(0.0, self._tried_at + RENEW_S - time.monotonic()))
        return self._renewed()

    def _renewed(self) -> Relay:
        began, self._tried_at = now_ms(), time.monotonic()
        text = self._read()
        try:
            if self._relay is None or text != self._text:
                self._text, self._relay = text, Relay(RelayConfig.from_parameter(text), self.ledger)
        except ConfigError:
            if self._relay is None:
                raise
            _log.exception("the parameter holds no configuration; going on by the last one")
        self._read_at, self._read_ms = self._tried_at, began
        return self._relay

    def _read(self) -> str:
        try:
            return self._ssm.get_parameter(Name=self._parameter)["Parameter"]["Value"]
        except (ClientError, BotoCoreError) as error:
            raise ConfigError(f"SSM parameter {self._parameter}: cannot be read: {error}") from error
