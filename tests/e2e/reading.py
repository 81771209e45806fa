"""A registry's client that is not ours: reads manifests by plain HTTP."""

import time
from typing import Final

import urllib3

from local import images

HTTP: Final = urllib3.PoolManager(retries=False, timeout=30)
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT: Final = {"Accept": ", ".join([images.OCI_INDEX, images.OCI_MANIFEST, images.DOCKER_MANIFEST, DOCKER_LIST])}

Image = tuple[str, str]
"""Repository, and tag or digest."""


def manifest(host: str, image: Image) -> bytes | None:
    answer = HTTP.request("GET", f"http://{host}/v2/{image[0]}/manifests/{image[1]}", headers=ACCEPT)
    return answer.data if answer.status == 200 else None


def referrers(host: str, repository: str, digest: str) -> list[str]:
    """By the referrers API, which the local ECR has."""
    answer = HTTP.request("GET", f"http://{host}/v2/{repository}/referrers/{digest}")
    return [entry["digest"] for entry in answer.json()["manifests"]]


def arrive(host: str, wanted: dict[Image, bytes], seconds: float = 60) -> None:
    """Fails the test when they are not all there in time, byte by byte."""
    ends = time.monotonic() + seconds
    while missing := [image for image, content in wanted.items() if manifest(host, image) != content]:
        assert time.monotonic() < ends, f"waited in vain for {missing} at {host}"
        time.sleep(0.2)
