"""Metrics for CloudWatch, printed in its embedded format: one line on stdout each time.

Lambda's log is where CloudWatch reads them from; nothing is sent. Values are floats there; what is
exact is the table.
"""

from typing import Final

from aws_lambda_powertools.metrics import EphemeralMetrics

from chalicelib.core.metrics import NAMESPACE, UNITS, Measured
from chalicelib.core.model.text import one_line

LONGEST_VALUE: Final = 250
"""Characters of a dimension's value. CloudWatch takes 1024, and did take 255 for long."""


class EmfMetrics:
    """Prints values by stage and work pool, and by deployment as well where there is one."""

    def __init__(self, stage: str, work_pool: str) -> None:
        self._dimensions = {"Stage": _value(stage), "WorkPool": _value(work_pool)}

    def measure(self, measured: Measured) -> None:
        """Print the values, all in one line; nothing for none."""
        if not measured.values:
            return
        metrics = EphemeralMetrics(namespace=NAMESPACE)
        metrics.service = ""  # else the variable POWERTOOLS_SERVICE_NAME adds a dimension
        for name, value in self._dimensions.items():
            metrics.add_dimension(name, value)
        if measured.deployment:
            deployment = _value(measured.deployment)
            metrics.add_dimensions(**self._dimensions, Deployment=deployment)
        for metric, amount in measured.values.items():
            metrics.add_metric(metric.value, UNITS.get(metric, "None"), float(amount))
        metrics.flush_metrics()


def _value(text: str) -> str:
    """Return text from outside as CloudWatch takes it: ASCII, not empty, without leading colon."""
    ascii_only = one_line(text, LONGEST_VALUE).encode("ascii", "backslashreplace").decode()
    return ascii_only[:LONGEST_VALUE].lstrip(": ") or "-"
