"""Finds a part by its name; late, for a part may import Prefect's SDK, which takes seconds."""

from importlib import import_module
from typing import cast

from bench.part import PARTS, Part


def load_part(name: str) -> Part:
    """Return the module of the part. Raises LookupError for a name that is none."""
    if name not in PARTS:
        raise LookupError(f"{name!r} is no part of the benchmark: there are {', '.join(PARTS)}")
    return cast("Part", import_module(f"bench.{name}"))
