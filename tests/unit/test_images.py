"""Which version of Prefect is in an image, by its name, and whether a worker fits its server."""

from importlib.metadata import version

import pytest

from chalicelib.core.provision.images import (
    CLEAN_STOP_SINCE,
    is_moving,
    is_newer,
    prefect_in,
    version_of,
    worker_flaw,
)
from chalicelib.settings import ROWS

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
AWS_391 = "prefecthq/prefect-aws:0.7.12-python3.12-prefect3.9.1"


@pytest.mark.parametrize(
    ("image", "found", "moving"),
    [
        ("prefecthq/prefect:3.9.1-python3.12", (3, 9, 1), False),
        ("docker.io/prefecthq/prefect:3.9-python3.12", (3, 9), False),
        (f"{ECR}/hub/prefecthq/prefect:3.10.0", (3, 10, 0), False),
        ("localhost:5000/prefecthq/prefect:3.9.1@sha256:0123", (3, 9, 1), False),
        (AWS_391, (3, 9, 1), False),
        ("prefecthq/prefect-aws:0.7-python3.12", (), False),
        (f"{ECR}/etl:7-prefect3.9.1", (3, 9, 1), False),
        (f"{ECR}/etl:1.2.3", (), False),
        (f"{ECR}/myprefecthq/prefect-etl:3.9.1", (), False),
        ("prefecthq/prefect:3-latest", (3,), True),
        ("prefecthq/prefect-aws:latest", (), True),
        ("prefecthq/prefect-aws:latest-python3.12", (), True),
        ("prefecthq/prefect-aws", (), True),
        ("localhost:5000/prefecthq/prefect-aws", (), True),
        ("prefecthq/prefect-aws:latest@sha256:0123", (), False),
    ],
)
def test_an_image_has_the_version_that_its_tag_names(
    image: str, found: tuple[int, ...], moving: bool
) -> None:
    assert prefect_in(image) == found
    assert is_moving(image) is moving


def test_the_workers_default_is_the_release_that_the_tests_run_with() -> None:
    """`requirements-dev.txt` pins both; raising one without the other is found here."""
    default = ROWS["worker_image"].default or ""
    assert default.startswith(f"prefecthq/prefect-aws:{version('prefect-aws')}-python")
    assert default.endswith(f"-prefect{version('prefect')}")
    assert not is_moving(default)
    assert prefect_in(default) >= CLEAN_STOP_SINCE


@pytest.mark.parametrize(
    ("image", "server", "step"),
    [
        (AWS_391, "3.9.0", "-prefect3.9.0"),
        (AWS_391, "3.8.8", "-prefect3.8.8"),
        (AWS_391, "2.20.1", "-prefect2.20.1"),
        (AWS_391, "3.9.1", ""),
        (AWS_391, "3.9.2.dev5", ""),
        (AWS_391, "3.10.0", ""),
        (AWS_391, "", ""),
        (f"{ECR}/worker:1", "3.4.0", ""),
        ("prefecthq/prefect:3-latest", "3.4.0", ""),
    ],
)
def test_a_worker_newer_than_its_server_is_refused_with_the_setting_to_change(
    image: str, server: str, step: str
) -> None:
    """What a name or a server leaves open is no reason to refuse."""
    flaw = worker_flaw(image, server)
    assert bool(flaw) is bool(step)
    if flaw:
        what, next_step = flaw
        assert f"newer than the server's {server}" in what
        assert next_step.startswith("set WORKER_IMAGE to a tag")
        assert step in next_step


def test_a_version_is_newer_only_for_certain() -> None:
    assert is_newer((3, 10), (3, 9, 9))
    assert not is_newer((3,), (3, 9))
    assert not is_newer((), (3,))
    assert version_of("v3.9.1") == (3, 9, 1)
    assert version_of("nightly") == ()
