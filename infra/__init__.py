"""Data that the product ships, and the few lines that read it. Imports nothing of ours."""

import json
from pathlib import Path
from typing import Any


def load(name: str) -> Any:
    """Return the JSON document `name` of this folder, for example "prices.json"."""
    return json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
