"""`spotctl explain RUN`: the story of one flow run, as text, JSON and picture.

`read.py` asks the table, ECS and Prefect; `story.py` makes the story of what they said, without
I/O; `show.py` and `chart.py` show it.
"""

from pathlib import Path

from spotctl.context import Context
from spotctl.explain.read import find, read
from spotctl.explain.show import WIDTH, as_mapping, as_text
from spotctl.explain.story import story_of
from spotctl.options import chart_files
from spotctl.output import Output


def explain_flow_run(context: Context, output: Output, run: str, chart: Path | None) -> None:
    """Print the story of the run, named by id, URL or name; draw it too where `chart` is a file.

    Raises RefusedError: it is not found, or not alone of its name. Also what AWS and Prefect raise
    where there is no story without them; OSError where the chart cannot be written.
    """
    files = chart_files(chart) if chart else None
    story = story_of(read(context, find(context, output, run)))
    output.result(as_mapping(story), lambda: as_text(story, min(WIDTH, output.width)))
    if files is not None:
        from spotctl.explain.chart import draw  # matplotlib takes a second to import

        png, svg = files
        draw(story, png, svg)
        output.progress(f"drawn: {png} and {svg}")
