"""Floor and cold start of the benchmark in short: both sides answer, figures have their form."""

from bench import cold, floor


def test_a_rescue_and_its_floor_both_make_their_runs_due() -> None:
    figures = floor.measure(print, short=True)
    assert floor.targets(figures).keys() == {"warm_vs_floor"}
    assert floor.tables(figures)[0].rows


def test_a_cold_start_answers_and_a_stop_without_a_warning_costs_one_read() -> None:
    figures = cold.measure(print, short=True)
    assert figures["no_op_requests"] == {"DynamoDB GetItem": 1, "Prefect": 0}
    targets = cold.targets(figures)
    assert targets["zip_bytes"] <= 2_000_000
    assert targets["peak_rss_mib"] <= 110
