"""Prefect's images by their names: which version is in them, and whether worker and server fit.

Prefect publishes `prefecthq/prefect:VERSION-pythonX.Y` and, at each release of Prefect and of
prefect-aws, `prefecthq/prefect-aws:VERSION-pythonX.Y-prefectVERSION`, which is never built anew
(prefect-aws-docker-images.yaml in PrefectHQ/prefect). Its `latest` has pointed to nightly builds
(prefect#20449).
"""

import re
from typing import Final

CLEAN_STOP_SINCE: Final = (3, 8, 1)
"""The first Prefect version that can relinquish a run on SIGTERM."""

SECRETS_SINCE: Final = (0, 7, 11)
"""The first prefect-aws that keeps a container's secrets beside the credential: prefect#22675."""

Version = tuple[int, ...]
"""Of Prefect, as far as it is known: (3,), (3, 9) or (3, 9, 1). A pre-release has its release's."""

_PARTS: Final = r"(\d{1,3})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?(?!\.?\d)"
_PREFECT: Final = re.compile(_PARTS)
_NAMED: Final = re.compile(rf"(?:^|[-_])prefect-?{_PARTS}")
_MOVING: Final = re.compile(r"^$|^latest\b|-latest$")


def version_of(text: str) -> Version:
    """Return the version that a text begins with, such as a server's `3.9.2.dev5`; () for none."""
    found = _PREFECT.match(text.strip().removeprefix("v"))
    return tuple(int(part) for part in found.groups() if part) if found else ()


def prefect_in(image: str) -> Version:
    """Return the version of Prefect in an image, by its tag; () where the tag does not say it.

    Only `prefecthq/prefect`, from any registry, has Prefect's version as its tag. Elsewhere a tag's
    number is another thing's, and Prefect's follows the word, as in `etl:7-prefect3.9.1`.
    """
    repository, tag = _parts_of(image)
    if repository == "prefecthq/prefect" or repository.endswith("/prefecthq/prefect"):
        return version_of(tag)
    found = _NAMED.search(tag)
    return tuple(int(part) for part in found.groups() if part) if found else ()


def is_moving(image: str) -> bool:
    """Whether the name means the newest image there is: a `latest`, or neither tag nor digest."""
    return "@" not in image and bool(_MOVING.search(_parts_of(image)[1]))


def is_newer(one: Version, other: Version) -> bool:
    """Whether a version is newer than another, for certain: what one of them leaves open is not."""
    known = min(len(one), len(other))
    return one[:known] > other[:known]


def said(version: Version) -> str:
    """Return the version in words."""
    return ".".join(map(str, version)) or "unknown"


def worker_flaw(image: str, server: str) -> tuple[str, str] | None:
    """Return what is wrong with a worker of that image, and the next step; None for nothing.

    Prefect's server accepts older clients; a newer one may ask for what it lacks. `server`: its
    version, empty where it is not served, as by Prefect Cloud, which is the newest.
    """
    worker, served = prefect_in(image), version_of(server)
    if not is_newer(worker, served):
        return None
    return (
        f"the worker's image {image} has Prefect {said(worker)}, newer than the server's {server}",
        f"set WORKER_IMAGE to a tag of prefecthq/prefect-aws that ends with -prefect{said(served)},"
        " or upgrade the server",
    )


def secrets_flaw(image: str) -> tuple[str, str] | None:
    """Return why a worker of that image gives flows no other secret than Prefect's credential.

    And the next step; None where it does, or the image's name does not say.
    """
    repository, tag = _parts_of(image)
    version = version_of(tag) if repository.endswith("prefecthq/prefect-aws") else ()
    if not is_newer(SECRETS_SINCE, version):
        return None
    return (
        f"the worker's image {image} has prefect-aws {said(version)}, which gives flows neither"
        " custom headers nor certificates beside the credential",
        f"set WORKER_IMAGE to one with prefect-aws {said(SECRETS_SINCE)} or newer",
    )


def _parts_of(image: str) -> tuple[str, str]:
    """The repository with its registry, which may have a port, and the tag; empty for none."""
    name = image.partition("@")[0]
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{path}{slash}{last}", tag
