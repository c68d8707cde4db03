"""How much `provision` brings up; apart from the planning, which only `provision` has to load."""

from enum import StrEnum


class Provision(StrEnum):
    """Everything, or only what the handler itself needs beside a cluster that is there already."""

    FULL = "full"
    RESCUE_ONLY = "rescue-only"
