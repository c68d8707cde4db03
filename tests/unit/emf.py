"""Reads what CloudWatch would make of a printed line, and holds it to CloudWatch's limits.

Source: CloudWatch user guide, "Specification: Embedded metric format" and the API reference of
`MetricDatum` and `Dimension`. Written from those alone, not from what the product prints.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

MOST_DIMENSIONS = 30
MOST_METRICS = 100
LONGEST_TEXT = 1024
"""Of a metric's name, and of a dimension's value."""
LONGEST_DIMENSION_NAME = 255
LONGEST_LINE = 1_048_576
UNITS = {"Seconds", "Count", "None"}


@dataclass(frozen=True)
class Datum:
    """One value of one series."""

    namespace: str
    dimensions: tuple[tuple[str, str], ...]
    metric: str
    unit: str
    value: float


def data_of(line: str) -> list[Datum]:
    """Return the data that a line of EMF holds; AssertionError where CloudWatch would drop it."""
    assert len(line.encode()) <= LONGEST_LINE
    document = json.loads(line, parse_constant=_no_number, object_pairs_hook=_no_key_twice)
    assert isinstance(document["_aws"]["Timestamp"], int)
    data = []
    for directive in document["_aws"]["CloudWatchMetrics"]:
        assert 1 <= len(directive["Namespace"]) <= 255
        assert len(directive["Metrics"]) <= MOST_METRICS
        for names in directive["Dimensions"]:
            assert len(names) == len(set(names)) <= MOST_DIMENSIONS
            dimensions = tuple(
                (_text(name, LONGEST_DIMENSION_NAME), _text(document[name], LONGEST_TEXT))
                for name in names
            )
            for metric in directive["Metrics"]:
                assert 1 <= len(metric["Name"]) <= LONGEST_TEXT
                assert metric["Unit"] in UNITS
                values = document[metric["Name"]]
                values = values if isinstance(values, list) else [values]
                assert len(values) <= MOST_METRICS
                space, name, unit = directive["Namespace"], metric["Name"], metric["Unit"]
                data += [Datum(space, dimensions, name, unit, _number(v)) for v in values]
    return data


def printed_data(output: str) -> list[Datum]:
    """Return the data of every line of EMF in an output, whatever else was printed."""
    lines = [line for line in output.splitlines() if '"_aws"' in line]
    return [datum for line in lines for datum in data_of(line)]


def total_of(data: Iterable[Datum], metric: str, *dimension_names: str) -> float:
    """Add up a metric's values in the series with just these dimensions."""
    return sum(
        datum.value
        for datum in data
        if datum.metric == metric and tuple(name for name, _ in datum.dimensions) == dimension_names
    )


def _text(value: object, longest: int) -> str:
    assert isinstance(value, str)
    assert 1 <= len(value) <= longest
    assert value.strip()
    assert not value.startswith(":")
    assert all(" " <= character <= "~" for character in value), value
    return value


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    assert not isinstance(value, bool)
    assert math.isfinite(value)
    assert value == 0 or 8.515920e-109 <= abs(value) <= 1.174271e108
    return float(value)


def _no_number(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def _no_key_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"a key stands there twice: {keys}"
    return dict(pairs)
