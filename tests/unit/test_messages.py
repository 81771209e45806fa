"""Messages: events as AWS words them, and our envelopes. What is refused is in test_consume."""

import json
from pathlib import Path

import pytest

from ecr_relay.errors import Malformed
from ecr_relay.messages import PULL_THROUGH, PUSH_DETAIL_TYPES, REPLICATION, Envelope, Ignored, PushEvent, parse

DIGEST = "sha256:" + "7f" * 32
EVENTS = Path(__file__).parents[1] / "events"


def event(detail_type: str = "ECR Image Action", /, **detail: object) -> str:
    return json.dumps(
        {
            "version": "0",
            "id": "13cde686-328b-6117-af20-0e5566167482",
            "detail-type": detail_type,
            "source": "aws.ecr",
            "account": "123456789012",
            "time": "2025-09-16T01:54:34Z",
            "region": "us-west-2",
            "resources": [],
            "detail": {
                "result": "SUCCESS",
                "repository-name": "my-repo",
                "image-digest": DIGEST,
                "action-type": "PUSH",
                "image-tag": "latest",
                "manifest-media-type": "application/vnd.oci.image.index.v1+json",
            }
            | detail,
        }
    )


def test_a_push() -> None:
    push = parse(event())
    assert isinstance(push, PushEvent)
    assert (push.source, push.repository, push.digest, push.tag) == (
        "123456789012.us-west-2",
        "my-repo",
        DIGEST,
        "latest",
    )
    assert push.first_seen == 1757987674000


@pytest.mark.parametrize("tag", ["", None])
def test_no_tag_is_the_empty_one_or_none(tag: str | None) -> None:
    push = parse(event(**{"image-tag": tag}))
    assert isinstance(push, PushEvent)
    assert push.tag is None


@pytest.mark.parametrize("detail_type", PUSH_DETAIL_TYPES)
def test_whatever_a_push_is_called(detail_type: str) -> None:
    push = parse(event(detail_type, **{"image-tag": None, "artifact-media-type": "application/spdx+json"}))
    assert isinstance(push, PushEvent)
    assert (push.detail_type, push.digest) == (detail_type, DIGEST)
    assert push.manifest_media_type == "application/vnd.oci.image.index.v1+json"
    assert push.artifact_media_type == "application/spdx+json"


@pytest.mark.parametrize(
    ("name", "detail_type", "repository", "tag"),
    [
        ("push-referrer", "ECR Referrer Action", "team/app", None),
        ("push-referrer-artifact", "ECR Artifact Action", "team/app", None),
        ("replication", REPLICATION, "team/app", "3.17.2"),
        ("pull-through", PULL_THROUGH, "docker-hub/alpine", "3.17.2"),
    ],
)
def test_an_image_that_came_otherwise(name: str, detail_type: str, repository: str, tag: str | None) -> None:
    push = parse((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    assert isinstance(push, PushEvent)
    # Of where the image is now, though a replication's event says as well where it came from.
    assert push.source == "111122223333.us-east-1"
    assert (push.detail_type, push.repository, push.tag) == (detail_type, repository, tag)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("archival", "action-update_storage_class"),
        ("referrer-restored", "action-update_storage_class"),
        ("replication-failure", "replication-failed"),  # whose digest is none, as in AWS's own example
        ("pull-through-failure", "pull-through-failed"),
    ],
)
def test_an_image_that_did_not_come(name: str, reason: str) -> None:
    assert parse((EVENTS / f"{name}.json").read_text(encoding="utf-8")) == Ignored(reason)


@pytest.mark.parametrize(
    ("detail", "reason"),
    [({"action-type": "DELETE"}, "action-delete"), ({"result": "FAILURE"}, "push-failed")],
)
def test_what_asks_nothing_of_us(detail: dict[str, object], reason: str) -> None:
    assert parse(event(**detail)) == Ignored(reason)


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ({"image-digest": "sha256:1"}, "detail.image-digest: 'sha256:1' is no sha256 digest"),
        ({"repository-name": "UPPER"}, "detail.repository-name: 'UPPER' is no repository name"),
        ({"image-tag": "a b"}, "detail.image-tag: 'a b' is no tag"),
        ({"result": None}, "detail.result: Input should be a valid string"),
    ],
)
def test_what_is_malformed(detail: dict[str, object], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        parse(event(**detail))


def test_an_envelope_round_trips() -> None:
    envelope = Envelope(
        lane="reconcile",
        source="1.us",
        destination="west",
        repository="team/app",
        tag="1",
        digest=DIGEST,
        as_of=5,
        first_seen=4,
    )
    assert parse(envelope.body()) == envelope
