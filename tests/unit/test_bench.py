"""The benchmark's record and page."""

from pathlib import Path

import pytest

from lab.bench import report
from lab.bench.__main__ import main

COLD = {"at": "2026-11-27 12:00 UTC", "seconds": 60.0, "machine": {"memory": "24 GiB"}}


def test_a_part_that_is_run_alone_leaves_the_others_as_they_were() -> None:
    both = {"zip_bytes": 5, "measured": {"cold": {"seconds": 1}, "floor": {}}}
    now = report.merge(both, "floor", {"warm_vs_floor": 1.2}, {"seconds": 2})
    assert now == {
        "zip_bytes": 5,
        "warm_vs_floor": 1.2,
        "measured": {"cold": {"seconds": 1}, "floor": {"seconds": 2}},
    }
    assert list(now)[-1] == "measured", "the promises are to stand on top"
    assert list(now["measured"]) == ["floor", "cold"], "in the order in which they are shown"


def test_the_page_shows_what_is_on_record_and_names_what_is_not(tmp_path: Path) -> None:
    rows = [{"": "a", "s": 1234.5}, {"": "b", "s": 12.34}, {"": "c", "s": 0.01234}]
    rows.append({"": "d", "s": None})
    measured = {**COLD, "figures": {"Times": rows}}
    targets = {"cold_vs_bare": 1.2, "peak_rss_mib": 120, "zip_bytes": 1_900_000}
    found = report.merge({}, "cold", targets, measured)
    report.save(found, tmp_path / "bench.json")
    page = tmp_path / "benchmarks.md"
    page.write_text(f"old figures\n\n{report.BY_HAND}\n\nby hand")
    report.write_page(report.load(tmp_path / "bench.json"), page)
    written = page.read_text()
    assert "old figures" not in written
    assert written.endswith(f"\n\n{report.BY_HAND}\n\nby hand")
    assert "Not measured yet: observer, automation, floor, storm, sweep." in written
    assert "times as long as that of a bare Chalice function, the zip has 1.90 MB" in written
    assert "| a | 1,234 |\n| b | 12.3 |\n| c | 0.0123 |\n| d | - |" in written
    assert "| cold start ÷ that of a bare Chalice function | 1.3 | 1.2 | kept |" in written
    assert "| peak memory of a Lambda, in MiB | 110 | 120 | MISSED |" in written
    assert "- memory 24 GiB: *cold*, 2026-11-27 12:00 UTC, in 60 s." in written


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["observers"], "there is no part observers: there are observer, automation"),
        (["--against", "."], "--against is for cold alone"),
    ],
)
def test_arguments_that_name_no_measurement_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert complaint in capsys.readouterr().err
