"""What refers to an image and goes along with it: signatures, SBOMs, attestations; of it, of its children, and of each
other. Found by the registry's referrers (OCI distribution specification 1.1) and by the tags that cosign gives."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ecr_relay.images import subject_tags
from ecr_relay.registries import Registry


@dataclass(frozen=True, slots=True)
class Referrer:
    """`digest` refers to `subject`; `tag` is the one that says so, where it is a tag that does."""

    digest: str
    subject: str
    tag: str | None = None


def referrers(source: Registry, repository: str, digest: str, follows: Callable[[str], bool]) -> Iterator[Referrer]:
    """Each once, the subject before what refers to it. Raises CopyError where the registry does not answer.

    `follows` says of the image, and of each of its children, whether what refers to it is wanted.
    """
    subjects = deque(filter(follows, (digest, *source.children(repository, digest))))
    known = set(subjects)
    while subjects:
        subject = subjects.popleft()
        for each in source.referrers(repository, subject):
            if each not in known:
                known.add(each)
                subjects.append(each)
                yield Referrer(each, subject)
        for tag in subject_tags(subject):
            if named := source.resolve(repository, tag):
                yield Referrer(named, subject, tag)
                if named not in known:
                    known.add(named)
                    subjects.append(named)
