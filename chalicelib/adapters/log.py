"""The function's log: an object of JSON per line, on stdout, which Lambda hands to CloudWatch.

Price of not taking a library for it: docs/decisions/no-powertools-in-the-zip.md.
"""

import json
import logging
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TextIO

SERVICE: Final = "prefect-spot"


class JsonLog:
    """`core.ports.Log`. Every line names its level, time and service, and has the `common` keys.

    `level`: the lowest that is printed, by Python's name. `stream`: stdout, unless one is given.
    """

    def __init__(
        self, level: str, now: Callable[[], datetime], stream: TextIO | None = None
    ) -> None:
        self._lowest = logging.getLevelNamesMapping()[level]
        self._now = now
        self._stream = stream
        self.common: dict[str, object] = {}

    def info(self, msg: object, **keys: Any) -> None:
        """Print a line; keywords become its keys."""
        self._print(logging.INFO, msg, keys)

    def exception(self, msg: object, **keys: Any) -> None:
        """Print a line with the present exception, its causes included."""
        kind = sys.exc_info()[0]
        name = kind.__name__ if kind else None
        self._print(
            logging.ERROR,
            msg,
            {**keys, "exception_name": name, "stack_trace": traceback.format_exc()},
        )

    def _print(self, level: int, msg: object, keys: dict[str, Any]) -> None:
        if level < self._lowest:
            return
        line = {
            "level": logging.getLevelName(level),
            "timestamp": self._now().isoformat(),
            "service": SERVICE,
            "message": str(msg),
            **self.common,
            **keys,
        }
        stream = self._stream or sys.stdout
        stream.write(json.dumps(line, default=str, separators=(",", ":")) + "\n")
