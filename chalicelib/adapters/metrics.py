"""Metrics for CloudWatch, printed in its embedded format: one line on stdout each time.

Lambda's log is where CloudWatch reads them from; nothing is sent. Values are floats there; what is
exact is the table. Source: CloudWatch user guide, "Specification: Embedded metric format".
"""

import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Final

from chalicelib.core.annotation import one_line
from chalicelib.core.metrics import NAMESPACE, UNITS, Measured

LONGEST_VALUE: Final = 250
"""Characters of a dimension's value. CloudWatch takes 1024, and did take 255 for long."""


class EmfMetrics:
    """Prints values by stage and work pool, and by deployment as well where there is one."""

    def __init__(self, stage: str, work_pool: str, now: Callable[[], datetime]) -> None:
        self._dimensions = {"Stage": _value(stage), "WorkPool": _value(work_pool)}
        self._now = now

    def measure(self, measured: Measured) -> None:
        """Print the values, all in one line; nothing for none."""
        if not measured.values:
            return
        dimensions, series = dict(self._dimensions), [list(self._dimensions)]
        if measured.deployment:
            dimensions["Deployment"] = _value(measured.deployment)
            series.append(list(dimensions))
        metrics = [
            {"Name": metric.value, "Unit": UNITS.get(metric, "None")} for metric in measured.values
        ]
        directive = {"Namespace": NAMESPACE, "Dimensions": series, "Metrics": metrics}
        milliseconds = int(self._now().timestamp() * 1000)
        line = {
            "_aws": {"Timestamp": milliseconds, "CloudWatchMetrics": [directive]},
            **dimensions,
            **{metric.value: float(amount) for metric, amount in measured.values.items()},
        }
        sys.stdout.write(json.dumps(line) + "\n")


def _value(text: str) -> str:
    """Return foreign text as CloudWatch takes it: ASCII, printable, not empty, no leading colon."""
    ascii_only = one_line(text, LONGEST_VALUE).encode("ascii", "backslashreplace").decode()
    return ascii_only[:LONGEST_VALUE].lstrip(": ") or "-"
