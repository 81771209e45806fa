"""Copying one image: repository -> immutable tags -> skopeo, by digest -> verify -> ledger -> tags -> its referrers."""

import logging
import threading
from typing import Final

from ecr_relay import rules
from ecr_relay.config import Destination
from ecr_relay.converge import JustCopied, Place, converge
from ecr_relay.copy.referrers import Referrer, referrers
from ecr_relay.errors import CopyError, Missing, Permanent, RegistryDown, TagTaken, TokenExpired, Transient
from ecr_relay.images import children
from ecr_relay.ledger import DigestRecord, Job, Ledger, Run, Target
from ecr_relay.manifests import Manifest, foreign_layers, unfit
from ecr_relay.relay import Relay
from ecr_relay.skopeo import Skopeo

TURN_S: Final = 5.0
"""How far ahead turns in PutImage's quota are reserved: less than a tag's, so that tags are not kept waiting."""

_LIST_REFUSED: Final = "Manifest list must be converted"
"""In what skopeo says when it cannot write an index as it is."""

_log = logging.getLogger(__name__)


class Copier:
    """For one run. `copy` is called from several threads; `stop` from a signal's or the lease's."""

    def __init__(self, relay: Relay, run: Run, destination: Destination, skopeo: Skopeo) -> None:
        self._relay = relay
        self._ledger: Ledger = relay.ledger
        self._run = run
        self._destination = destination
        self._skopeo = skopeo
        self._stopped = threading.Event()
        self._ensuring = threading.Lock()
        self._ensured: set[str] = set()
        self._moved: dict[str, int] = {}

    @property
    def moved(self) -> int:
        """Bytes that this run's copies have written so far; 0 where the system does not tell."""
        return sum(list(self._moved.values()))

    def stop(self) -> None:
        """End what is being copied; attempts that were cut off do not count."""
        self._stopped.set()
        self._skopeo.stop()

    def copy(self, job: Job) -> None:
        """The outcome is in the ledger. Raises only what is nobody's: the ledger out of reach, a bug."""
        record = self._copy(job)
        if record is None:
            return
        place = self._relay.place(self._destination, job.repository)
        for tag in job.tags:
            self._tag(place, job, tag.name, tag.seen_at)
        if record.first_seen is not None and self._run.lane == "push":
            self._ledger.lags.arrived(record.first_seen)
        if any(one.destination == self._destination for one in rules.referring(self._relay.config, job.repository)):
            self._follow(place, job)

    def _copy(self, job: Job) -> DigestRecord | None:
        """A digest that this run has claimed; its record once it has arrived, or None."""
        target = self._run.target(job)
        facts = self._facts(job) | {"digest": job.digest}
        begun = self._ledger.clock()
        try:
            if self._stopped.is_set():
                raise Transient("the copy task was stopped")
            place = self._relay.place(self._destination, job.repository)
            moved = self._bring(place, job)
        except CopyError as error:
            self._lost(target, job, error)
            _log.warning("copy failed", extra=facts | {"class": type(error).__name__, "error": str(error)})
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            # No disk, no memory, no process to be had, or a bug: an attempt like any other, or it would never end.
            self._lost(target, job, Transient(f"{type(error).__name__}: {error}"))
            _log.exception("copy failed", extra=facts)
            return None
        record = self._ledger.digests.copied(place.target, job.digest, self._run.id, brought=moved)
        if record is None:
            _log.warning("copied, but the claim was lost meanwhile", extra=facts)
            return None
        milliseconds = self._ledger.clock() - begun
        _log.info("copied" if moved else "was there", extra=facts | {"milliseconds": milliseconds})
        return record

    def _follow(self, place: Place, job: Job) -> None:
        """Bring what refers to the image. What fails of it has a record of its own, and fails no image: its own event,
        or the reconcile, tries it again."""
        facts = {"run": self._run.id, "repository": job.repository, "digest": job.digest}
        tags = [tag.name for tag in job.tags]

        def follows(subject: str) -> bool:
            known = tags if subject == job.digest else ()
            return self._relay.following(self._destination, job.repository, subject, known) is not None

        try:
            for one in referrers(place.source, place.source_repository, job.digest, follows):
                if self._stopped.is_set():
                    return
                self._bring_along(place, one)
        except CopyError as error:
            _log.warning("referrers not listed", extra=facts | {"class": type(error).__name__, "error": str(error)})

    def _bring_along(self, place: Place, one: Referrer) -> None:
        job = Job(repository=place.source_repository, digest=one.digest)
        seen_at = self._ledger.clock()
        if not place.destination.has(place.destination_repository, one.digest):
            record = self._ledger.digests.get(place.target, one.digest)
            if record.status == "copying":
                return  # its own message brings it
            claim = self._ledger.digests.claim(record, self._run.id, seen_at, subject=one.subject)
            if claim is None or self._copy(job) is None:
                return
        if one.tag is not None:
            self._tag(place, job, one.tag, seen_at)

    def _facts(self, job: Job) -> dict[str, object]:
        """What every line about a job says. Several messages may wait for one, so it names them all."""
        return {
            "run": self._run.id,
            "message_id": " ".join(job.messages),
            "attempt": job.attempt,
            "destination": self._run.destination,
            "lane": self._run.lane,
            "repository": job.repository,
        }

    def _bring(self, place: Place, job: Job) -> bool:
        """Make the digest be at the destination; False if it was."""
        repository = place.destination_repository
        self._ensure(place, repository)
        self._refuse_taken(place, job)
        if place.destination.has(repository, job.digest):
            return False
        manifest = self._examined(place, job)
        # skopeo puts an index's children and the index one after another, at once: reserve them all.
        self._await_turn(1 + len(children(manifest.content)))
        try:
            self._run_skopeo(place, job)
        except Permanent as error:
            if not self._put_index(place, manifest, error):
                raise
        if not place.destination.has(repository, job.digest):
            raise Transient(f"skopeo succeeded, but {repository}@{job.digest} is not at the destination")
        return True

    def _run_skopeo(self, place: Place, job: Job) -> None:
        try:
            self._skopeo_copy(place, job)
        except TokenExpired as error:
            # It took longer than a token lasts. What has arrived is there, so a second run goes on from there.
            facts = {"run": self._run.id, "repository": job.repository, "digest": job.digest, "error": str(error)}
            _log.warning("logging in anew", extra=facts)
            self._skopeo_copy(place, job)

    def _put_index(self, place: Place, manifest: Manifest, error: Permanent) -> bool:
        """Put an index that skopeo does not write as it is, though it has brought all that it lists; False if that is
        not what has happened.

        It makes the list anew from what it knows of each image, and refuses when that differs: 1.9 knows no
        `artifactType`, and 1.18 marks images whose layers are zstd (podman-container-tools/skopeo issue 2778).
        """
        repository, listed = place.destination_repository, children(manifest.content)
        if _LIST_REFUSED not in str(error) or not listed:
            return False
        if not all(place.destination.has(repository, child) for child in dict.fromkeys(listed)):
            return False
        place.destination.put_manifest(repository, manifest)
        return True

    def _skopeo_copy(self, place: Place, job: Job) -> None:
        logins = {registry.host: registry.login() for registry in (place.source, place.destination)}
        self._skopeo.login({host: login for host, login in logins.items() if login is not None})
        self._skopeo.copy(
            f"{place.source.host}/{place.source_repository}",
            job.digest,
            f"{place.destination.host}/{place.destination_repository}",
            lambda count: self._moved.update({f"{place.destination_repository}@{job.digest}": count}),
            plain_http=place.source.plain_http,
            ca_certificate=place.source.ca_certificate,
        )

    def _await_turn(self, manifests: int) -> None:
        rate, turn = self._destination.put_image_per_second, None
        while turn is None:
            if self._stopped.is_set():
                raise Transient("the copy task was stopped")
            turn = self._ledger.quota.reserve(self._destination.id, manifests, rate, TURN_S)
            self._ledger.sleep(1.0 if turn is None else turn)

    def _examined(self, place: Place, job: Job) -> Manifest:
        """The manifest at the source. Raises Permanent for what no copy can bring, before a layer moves.

        It is read once: a registry may count each GET of a manifest as a pull, though no question whether it is there.
        """
        name = f"{place.source_repository}@{job.digest}"
        manifest = place.source.manifest(place.source_repository, job.digest)
        if manifest is None:
            raise Missing(f"{name} is not at the source any more")
        if reason := unfit(manifest):
            raise Permanent(f"{name}: {reason}")
        for child in dict.fromkeys(children(manifest.content)):
            if not place.source.has(place.source_repository, child):
                raise Permanent(f"{name}: it lists {child}, which the source does not have; push it again as a whole")
        if elsewhere := foreign_layers(manifest):
            facts = {"run": self._run.id, "repository": job.repository, "digest": job.digest}
            _log.warning("layers lie elsewhere and are not copied", extra=facts | {"layers": elsewhere})
        return manifest

    def _refuse_taken(self, place: Place, job: Job) -> None:
        """Note the tags that cannot be put; raises TagTaken if that leaves nothing to copy for."""
        taken = [
            tag
            for tag in job.tags
            if place.destination.tag_is_taken(place.destination_repository, job.digest, tag.name)
        ]
        for tag in taken:
            reason = f"{place.destination_repository}:{tag.name} is immutable and names another digest"
            self._ledger.tags.fail(place.target, tag.name, TagTaken(reason))
        if taken and len(taken) == len(job.tags):
            raise TagTaken(f"every tag of {job.digest} in {place.destination_repository} is immutable and taken")

    def _ensure(self, place: Place, repository: str) -> None:
        with self._ensuring:
            if repository not in self._ensured:
                place.destination.ensure_repository(repository, self._destination.new_repository)
                self._ensured.add(repository)

    def _lost(self, target: Target, job: Job, error: CopyError) -> None:
        digests = self._ledger.digests
        if isinstance(error, RegistryDown):
            self._ledger.notes.open_breaker(self._destination.name, str(error))
            digests.release(target, job.digest, self._run.id, error)
        elif self._stopped.is_set() or isinstance(error, TagTaken):
            # Cut off, or it is the tags that failed, as their records say: the digest itself may be wanted again.
            digests.release(target, job.digest, self._run.id, error)
        else:
            digests.fail(target, job.digest, self._run.id, error)

    def _tag(self, place: Place, job: Job, tag: str, seen_at: int) -> None:
        """What does not succeed here is left to the message, which finds the digest copied and tries again."""
        facts = self._facts(job) | {"tag": tag}
        try:
            outcome = converge(self._ledger, place, tag, just_copied=JustCopied(job.digest, seen_at))
        except CopyError as error:
            _log.warning("tag not put", extra=facts | {"class": type(error).__name__, "error": str(error)})
        else:
            _log.info(
                "tag", extra=facts | {"outcome": type(outcome).__name__, "digest": getattr(outcome, "digest", None)}
            )
