"""Charts of the benchmark's page, by matplotlib, drawn without a display."""

from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from bench.part import Chart

_WIDTH: Final = 0.8
"""Of a group of bars, of the room that it has."""


def draw(chart: Chart, folder: Path) -> Path:
    """Draw into `folder` and return the file. Raises OSError as writing does."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    width = _WIDTH / len(chart.series)
    for place, (name, values) in enumerate(chart.series.items()):
        shift = (place - (len(chart.series) - 1) / 2) * width
        bars = axes.bar([n + shift for n in range(len(values))], values, width, label=name)
        axes.bar_label(bars, fmt="{:.3g}", fontsize="small")
    axes.set_xticks(range(len(chart.labels)), chart.labels)
    axes.set_yscale("log" if chart.logarithmic else "linear")
    axes.set_ylabel(chart.unit)
    axes.set_title(chart.title)
    axes.margins(y=0.15)
    if len(chart.series) > 1:
        axes.legend(fontsize="small")
    file = folder / f"{chart.file}.png"
    figure.savefig(file, dpi=120, metadata={"Software": None})
    return file
