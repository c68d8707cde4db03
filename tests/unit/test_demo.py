"""A demo that fails: a line, the next step, and a file with what happened."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from localcloud import demo
from localcloud.cloud import Options


def test_a_demo_that_fails_ends_with_a_line_and_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "flow.log").write_text("beginning\n" * 100 + "out of memory\n")
    file = tmp_path / "build" / "demo-failure.txt"
    said = StringIO()
    try:
        raise RuntimeError("the Prefect server ended; its log:\n[ERROR] no space left")
    except RuntimeError as error:
        error.add_note(demo.logs_of(tmp_path))
        demo.report_failure(Console(file=said, width=200), error, file)
    assert said.getvalue().startswith(
        "error: the demo failed: the Prefect server ended; its log:\n[ERROR] no space left\n"
        "next step: run make demo again"
    )
    assert "Traceback" not in said.getvalue()
    kept = file.read_text()
    assert "Traceback" in kept
    assert "tasks/flow.log" in kept
    assert "out of memory" in kept
    assert kept.count("beginning") < 100
    assert file.stat().st_mode & 0o777 == 0o600


def test_each_cloud_has_a_password_of_its_own() -> None:
    made = {Options().auth_string for _ in range(100)}
    assert len(made) == 100
    assert all(len(pair.removeprefix("admin:")) >= 32 for pair in made)
