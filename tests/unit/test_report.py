"""The report: rows, totals, the confidence interval, and how each form of it shows them."""

import csv
import io
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from matplotlib import rc_context
from matplotlib.image import imread

from chalicelib.adapters.bills import BillTable
from chalicelib.core.model.pricing import with_assumed
from chalicelib.core.money.bill import Deployment
from chalicelib.core.money.report import (
    DRILLS,
    Counts,
    DailySum,
    Report,
    days_between,
    in_usd,
    report_of,
)
from chalicelib.core.money.savings import savings_table
from spotctl.chart import draw, figure_of
from spotctl.errors import RefusedError
from spotctl.output import Output, as_json, clean
from spotctl.rate import garwood, rate_per_hour
from spotctl.report import as_csv, as_mapping, as_table, days_since, read_report
from tests.twin.tables import InMemoryBills
from tests.unit.test_bill import ON_DEMAND, SPOT

TODAY = date(2026, 11, 23)
HOUR_US = 3600 * 10**6

NIGHTLY = Deployment("1", "etl/nightly")
HOURLY = Deployment("2", "etl/hourly")


def daily(
    deployment: Deployment = NIGHTLY, day: date = TODAY, rate: str = str(SPOT), **counts: int
) -> DailySum:
    ordinary = {
        "runs": 1,
        "attempts": 2,
        "interruptions": 1,
        "spot_reruns": 1,
        "spot_us": 2 * HOUR_US,
        "wasted_us": HOUR_US // 2,
        "cost_e8": 30_000_000,
        "on_demand_e8": 100_000_000,
        "wasted_e8": 7_500_000,
        "useful_e8": 75_000_000,
    }
    return DailySum(day, deployment, Counts(**{**ordinary, **counts}), frozenset([rate]))


def report(*sums: DailySum, until: date = TODAY) -> Report:
    return report_of(sums, until - timedelta(days=6), until)


WEEK = (
    daily(),
    daily(day=TODAY - timedelta(days=1), interruptions=0, spot_reruns=0),
    daily(HOURLY, on_demand_reruns=1, useful_e8=10_000_000),
    daily(DRILLS, attempts=1, runs=0, interruptions=0),
)


def content_of(made: Report) -> Any:
    return json.loads(as_json(as_mapping(made)))


def test_days_and_deployments_add_up_and_drills_stand_apart() -> None:
    made = report(*WEEK)
    assert [(row.day, row.deployment) for row in made.rows] == [
        (TODAY, "etl/nightly"),
        (TODAY - timedelta(days=1), "etl/nightly"),
        (TODAY, "etl/hourly"),
    ]
    assert [(r.deployment, r.counts.runs) for r in made.deployments] == [
        ("etl/hourly", 1),
        ("etl/nightly", 2),
    ]
    assert made.total.counts == WEEK[0].counts + WEEK[1].counts + WEEK[2].counts
    assert made.drills.counts == WEEK[3].counts
    assert made.total.counts.amounts.net_savings_usd == Decimal("0.70")  # 1.60 - 3 x 0.30


POOLS = ("etl", "ml")
BY_POOL = (
    daily(),  # by an earlier release, which knew of one pool
    daily(replace(NIGHTLY, work_pool="etl"), runs=4),
    daily(replace(HOURLY, work_pool="ml"), runs=2),
    daily(replace(DRILLS, work_pool="ml"), runs=0),
)


def test_several_work_pools_are_reported_apart_and_what_has_none_is_the_firsts() -> None:
    made = report_of(BY_POOL, TODAY, TODAY, POOLS)
    nightly, hourly = ("etl/nightly", "etl", 5), ("etl/hourly", "ml", 2)
    shown = [(r.deployment, r.work_pool, r.counts.runs) for r in (*made.rows, *made.whole)]
    assert shown[:2] == [nightly, hourly]
    assert shown[2:] == [hourly, nightly, ("all", "etl", 5), ("all", "ml", 2), ("all", "", 7)]
    assert as_table(made).splitlines()[2].split()[:3] == ["deployment", "pool", "runs"]
    assert [row["work pool"] for row in savings_table(made)] == ["ml", "etl", "etl", "ml", ""]
    rows = csv.DictReader(io.StringIO(as_csv(made)))
    assert [row["work_pool"] for row in rows] == ["etl", "ml", ""]
    assert [row["work_pool"] for row in content_of(made)["work_pools"]] == ["etl", "ml"]
    only = report_of(BY_POOL[:2], TODAY, TODAY, POOLS)
    assert " pool " not in as_table(only)
    assert "work pool" not in savings_table(only)[0]


def test_the_report_of_one_pool_leaves_the_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BillTable, "read_sums", lambda *_: BY_POOL)
    client: Any = None
    runs = {pool: read_report(client, "t", "1d", TODAY, POOLS, pool) for pool in ("", *POOLS)}
    assert {pool: made.total.counts.runs for pool, made in runs.items()} == {
        "": 7,
        "etl": 5,
        "ml": 2,
    }
    assert [made.drills.counts.attempts for made in runs.values()] == [2, 0, 2]
    with pytest.raises(RefusedError, match="--pool 'other' is none of the stage's work pools: etl"):
        read_report(client, "t", "1d", TODAY, POOLS, "other")


def test_a_renamed_deployment_goes_by_its_last_name() -> None:
    old = daily(Deployment("1", "etl/old"), day=TODAY - timedelta(days=3))
    nameless = daily(Deployment("1"), day=TODAY)
    made = report(nameless, old, daily(day=TODAY - timedelta(days=2)))
    assert {row.deployment for row in made.rows} == {"etl/nightly"}


# Garwood's limits for 95 %, as tables of the exact Poisson interval have them.
@pytest.mark.parametrize(
    ("events", "low", "high"),
    [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (10, 4.7954, 18.3904), (100, 81.3640, 121.6268)],
)
def test_the_interval_is_the_exact_one(events: int, low: float, high: float) -> None:
    assert garwood(events) == pytest.approx((low, high), abs=5e-5)
    assert garwood(1_000_000) == pytest.approx((998_040, 1_001_960), abs=5)


def test_without_hours_there_is_no_rate() -> None:
    assert rate_per_hour(0, Decimal(0)) is None


ALWAYS = (
    "etl/nightly",
    "2026-11-22",
    "2 in 6.0 h",
    "0.33 (0.040 to 1.2 with 95 % confidence",
    " 0.70",
    "Drills, in no total: 2.0 h, 0.300000 USD paid",
    "us-east-1 x86_64 FARGATE_SPOT: 0.01288871 USD per vCPU-hour, 0.00141527 USD per GB-hour"
    " (a test, read 2026-11-01)",
    "estimates",
)
OBSERVED = daily(spot_reruns=0, would_spot_reruns=4, would_on_demand_reruns=1)
GUARDED = (daily(auto_moves=2), daily(auto_moves=1, deadline_moves=1))
OLD = TODAY + timedelta(days=90)


GUARDS = "Put on demand by a guard, earlier than by the budget: deadline 1, auto 3"
WARNING = "Warning: rates of 2026-11-01 were used, which is more than 90 days ago"


@pytest.mark.parametrize(
    ("sums", "shown", "hidden"),
    [
        (WEEK, ALWAYS, ("would", "Warning", "guard", "failed starts", "*", "assumed Spot")),
        (
            (daily(failed_starts=7),),
            (" failed ", "on demand  starts", "  7  "),
            ("would", "by day"),
        ),
        ((), ("none: nothing was billed with a rate",), ()),
        (GUARDED, (GUARDS,), ()),
        ((OBSERVED,), (" would:     would:", "not made, only decided"), ("  rerun  ",)),
        ((daily(partial_bills=1),), ("Warning: 1 partial bill: a time",), ()),
        ((daily(day=OLD),), (WARNING,), ()),
    ],
    ids=["a week", "failed starts", "nothing", "guards", "observe", "partial", "old rates"],
)
def test_the_table_says_all_of_it_and_nothing_that_is_not(
    sums: Sequence[DailySum], shown: Sequence[str], hidden: Sequence[str]
) -> None:
    text = as_table(report(*sums, until=max((s.day for s in sums), default=TODAY)))
    assert [part for part in shown if part not in text] == []
    assert [part for part in hidden if part in text] == []


def test_each_amount_stands_under_its_name() -> None:
    usd = 10**8
    made = daily(cost_e8=usd, on_demand_e8=7 * usd, wasted_e8=4 * usd, useful_e8=6 * usd)
    upper, lower, _, row = as_table(report(made)).splitlines()[1:5]
    assert upper.split()[-5:] == ["on", "demand,", "of", "it", "net"]
    assert lower.split()[-5:] == ["without", "repeats", "paid", "wasted", "saving"]
    assert row.split()[-4:] == ["6.00", "1.00", "4.00", "5.00"]


@pytest.mark.parametrize("width", [80, 120, 160])
def test_no_line_of_the_table_is_wider_than_the_terminal_and_both_ends_of_a_name_stay(
    width: int,
) -> None:
    names = [f"{'customer-' * (n % 4 * 3)}flow/deployment-{n}" for n in range(8)]
    sums = [daily(Deployment(n, n, n[:4]), failed_starts=1, cost_e8=10**10) for n in names]
    observed = [replace(each, counts=replace(OBSERVED.counts, failed_starts=1)) for each in sums]
    pools = report_of(
        [replace(each, counts=OBSERVED.counts) for each in sums], TODAY, TODAY, ("x",)
    )
    for made in (report(*sums), report(*observed), pools):
        table = as_table(made, width=width).partition("Net saving:")[0]
        assert [line for line in table.splitlines() if len(line) > width] == []
        assert {f"deployment-{n}"[-4:] for n in range(8)} <= {
            line.split()[0][-4:] for line in table.splitlines() if line
        }


ASSUMED = next(iter(with_assumed({ON_DEMAND.key: ON_DEMAND}, Decimal("0.68")).values()))
IN_PART = (daily(assumed_bills=2, rate=str(ASSUMED)), daily(HOURLY), daily(DRILLS))


def test_every_figure_made_with_an_assumed_spot_rate_is_marked_and_no_other_is() -> None:
    made = report(*IN_PART)
    text = as_table(made)
    rows = {line.split()[0]: line.split()[-4:] for line in text.splitlines() if line}
    for name, is_assumed in (("etl/nightly", True), ("etl/hourly", False), ("all", True)):
        marks = [figure.endswith("*") for figure in rows[name]]
        assert marks == [False, *[is_assumed] * 3], name
    assert "(assumed: on-demand less 68 %, read 2026-11-01)" in text
    assert "Warning: 2 bills with an assumed Spot rate; figures made with it bear a *:" in text
    assert "0.300000 USD paid" in text
    assert "0.300000* USD paid" in as_table(report(daily(DRILLS, assumed_bills=1)))
    content = content_of(made)
    assert [row["assumed_bills"] for row in content["rows"]] == [2, 0]
    assert content["total"]["assumed_bills"] == 2
    assert any("2 bills with an assumed" in warning for warning in content["warnings"])
    sources = [rate["source"] for rate in content["rates"]]
    assert "assumed: on-demand less 68 %" in sources
    rows_of_csv = list(csv.DictReader(io.StringIO(as_csv(made))))
    assert [row["assumed_bills"] for row in rows_of_csv] == ["2", "0", "0"]
    assert [row["assumed"] for row in savings_table(made)] == [0, 2, 2]
    assert "assumed" in list(savings_table(made)[0])[:5], "what Prefect's UI shows of a table"


def test_json_holds_exact_amounts_and_every_rates_source_and_date() -> None:
    content = content_of(report(*WEEK))
    assert content["rows"][0]["cost_usd"] == "0.30000000"
    assert content["total"]["net_savings_usd"] == "0.70000000"
    assert content["total"]["useful_usd"] == "1.60000000"
    assert content["total"]["interruptions_per_spot_hour"]["observed"] == pytest.approx(1 / 3)
    assert content["drills"]["attempts"] == 1
    [rate] = content["rates"]
    assert (rate["source"], rate["date"]) == ("a test", "2026-11-01")
    assert content_of(report(OBSERVED, *GUARDED))["total"]["would_spot_reruns"] == 4
    assert content_of(report(daily(failed_starts=7)))["rows"][0]["failed_starts"] == 7
    assert content_of(report())["rows"] == []


def test_csv_has_a_row_per_deployment_and_day_and_one_of_drills() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report(*WEEK)))))
    assert [(row["day"], row["deployment"]) for row in rows] == [
        ("2026-11-23", "etl/nightly"),
        ("2026-11-22", "etl/nightly"),
        ("2026-11-23", "etl/hourly"),
        ("", "(drills)"),
    ]
    assert sum(Decimal(row["cost_usd"]) for row in rows[:3]) == Decimal("0.90")
    assert as_csv(report()).count("\n") == 1


HOSTILE = (
    *('=HYPERLINK("http://x")', "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", ' "=1', "\x1b=1"),
    *("etl;=1", "etl,+1", "etl|-1+1", "etl; \t@x", "etl;'=1", "\uff1d1", "etl;\uff0b1", "\u200b=1"),
    *("[bold]x[/bold]", "[/]", ":skull:", "[red", 'a\nb,"c"', "\x1b[31mb", "$\\frac{", "x" * 500),
)  # fmt: skip


def test_a_hostile_name_is_only_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = report(*[daily(Deployment(name, name)) for name in HOSTILE])
    Output("table").result({}, lambda: as_table(made))
    text = capsys.readouterr().out
    for name in HOSTILE:
        assert clean(name).strip().split()[0][:5] in text
    assert [c for c in text if not (c.isprintable() or c == "\n")] == []
    draw(made, tmp_path / "c.png", tmp_path / "c.svg")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_spreadsheet_reads_a_formula_in_a_name_and_figures_stay_figures(name: str) -> None:
    lost = daily(Deployment(name, name), on_demand_e8=0)
    text = as_csv(report(lost))
    for separator in ",;|\t":
        cells = [cell for row in csv.reader(io.StringIO(text), delimiter=separator) for cell in row]
        starts = [cell.lstrip(" \t\r\n\"'") for cell in cells if not cell.startswith("'")]
        formulas = [cell for cell in starts if cell and cell[0] in "=+@-\uff1d\uff0b\uff0d\uff20"]
        assert [
            cell for cell in formulas if not re.match(r"-[0-9]+(\.[0-9]+)?[^0-9+*/-]*", cell)
        ] == []
    [row] = csv.DictReader(io.StringIO(text))
    assert Decimal(row["savings_usd"]) == Decimal("-0.3")
    assert text.count("\n") == 2
    assert all(re.fullmatch('"([^"]|"")*"(,"([^"]|"")*")*', line) for line in text.splitlines())


USD = 10**8
YESTERDAY = TODAY - timedelta(days=1)
TINY = daily(cost_e8=61_000, on_demand_e8=98_000, wasted_e8=14_000, useful_e8=74_000)
LOST = daily(cost_e8=3 * USD, on_demand_e8=9 * USD, wasted_e8=2 * USD, useful_e8=USD)
FORTY = [daily(Deployment(str(n), f"etl/{n:02d}"), spot_us=n * HOUR_US) for n in range(40)]
ONE_DAY = ("etl/nightly", "saved (", "on demand, without repeats: 0.850000 USD", "1 in 2.0 h")
BY_DAY = (
    "on demand, without repeats: 1.60 USD",
    "wasted: 0.225000 USD",
    "net saving so far, USD",
    "17 Nov",
    "23 Nov",
    "etl/nightly",
    "2 in 6.0 h",
)
MARKED = (
    *("saved 0.900000* USD", "paid*, useful", "0.450000* saved"),
    "* 2 bills with an assumed Spot rate",
)
OF_FORTY = ("12 most expensive of 40", "12 longest on Spot of 40", "etl/39", "etl/28")


@pytest.mark.parametrize(
    ("sums", "shown", "hidden"),
    [
        (WEEK, BY_DAY, ("*", "demand: 3.00")),
        ((*WEEK[2:], daily()), ONE_DAY, ("so far", "Nov</text>")),
        ((TINY,), ("saved 0.000130 USD", "(18 % of on demand", ">0.0006<"), ("1e", "e-")),
        ((LOST,), ("Spot cost 2.00 USD more than", "(200 % more)", "2.00 more (200"), ()),
        (
            (daily(useful_e8=0, wasted_e8=30_000_000),),
            ("cost 0.300000 USD more", "0.300000 more"),
            ("%)",),
        ),
        (IN_PART, MARKED, ("on demand*",)),
        ((*IN_PART, daily(day=YESTERDAY)), ("net saving* so far",), ()),
        (FORTY, OF_FORTY, ("etl/27", "others")),
        ((daily(), daily(HOURLY, spot_us=9000 * HOUR_US)), ("0.0001<", "1 in 9,000 h"), ()),
        ((daily(spot_us=0, useful_e8=30_000_000),), ("Nothing was saved",), ("per Spot hour",)),
        ((), ("Nothing was billed", "17 Nov 2026 to 23 Nov 2026 (UTC)"), ("USD", "Spot hour")),
        ((daily(Deployment("1", f"{'a' * 60}/spot")),), (f"{'a' * 15}…{'a' * 10}/spot<",), ()),
    ],
    ids=[
        *("days", "one day", "tiny", "a loss", "all repeated", "assumed", "assumed days", "forty"),
        *("far apart", "on demand only", "nothing", "a long name"),
    ],
)
def test_the_chart_says_the_result_in_words_and_shows_no_more_than_can_be_read(
    sums: Sequence[DailySum], shown: Sequence[str], hidden: Sequence[str], tmp_path: Path
) -> None:
    png, svg = tmp_path / "c.png", tmp_path / "c.svg"
    with rc_context({"svg.fonttype": "none"}):  # text as text
        draw(report(*sums), png, svg)
    text = "\n".join(re.findall(r"<text [^>]*>.*?</text>", svg.read_text()))
    assert [part for part in shown if part not in text] == []
    assert [part for part in hidden if part in re.sub("<text [^>]*>", ">", text)] == []
    assert imread(png)[0, 0].tolist() == [1, 1, 1, 1], "white, whatever the page is"


PARTIAL = daily(cost_e8=0, on_demand_e8=0, wasted_e8=0, useful_e8=0)


@pytest.mark.parametrize(
    ("sums", "useful_on_demand", "paid", "repeated"),
    [
        (WEEK, [0] * 5 + [0.75, 0.85], [0] * 5 + [0.225, 0.45], [0] * 5 + [0.075, 0.15]),
        (WEEK[2:], [0.1], [0.225], [0.075]),
        ((LOST, daily(HOURLY)), [0.75, 1], [0.225, 1], [0.075, 2]),
        ((PARTIAL,), [0], [0], [0]),
        ((PARTIAL, daily(day=YESTERDAY, useful_e8=0, cost_e8=0, wasted_e8=0)), *[[0] * 7] * 3),
    ],
    ids=["days", "one day", "a loss", "partial", "partial days"],
)
def test_the_net_saving_is_the_difference_of_two_bars(
    sums: Sequence[DailySum],
    useful_on_demand: list[float],
    paid: list[float],
    repeated: list[float],
) -> None:
    made = report(*sums)
    panels: list[Any] = figure_of(made).axes
    money, *others = panels
    bars = [list(bar.datavalues) for bar in money.containers]
    assert bars == [pytest.approx(each) for each in (useful_on_demand, paid, repeated)]
    net = float(made.total.counts.amounts.net_savings_usd)
    assert sum(useful_on_demand) - sum(paid) - sum(repeated) == pytest.approx(net)
    if len(paid) == 7:
        assert others[0].lines[0].get_ydata()[-1] == pytest.approx(net)


def test_the_chart_of_a_report_is_the_same_each_time(tmp_path: Path) -> None:
    png, svg, again = tmp_path / "c.png", tmp_path / "c.svg", tmp_path / "d.svg"
    for image in (svg, again):
        draw(report(*WEEK), png, image)
    assert png.stat().st_size > 20_000
    assert svg.stat().st_size == again.stat().st_size


def test_prefects_table_has_the_money_first_a_row_per_deployment_and_a_total() -> None:
    rows = savings_table(report(*WEEK))
    assert [row["deployment"] for row in rows] == ["etl/hourly", "etl/nightly", "all"]
    assert rows[-1]["net USD"] == 0.7
    assert json.loads(json.dumps(rows)) == rows
    assert list(rows[0])[:4] == ["deployment", "net USD", "wasted USD", "interrupted"]
    assert not any("would" in name or "failed" in name for name in rows[0])
    [observed, _] = savings_table(report(daily(would_spot_reruns=4, failed_starts=7)))
    assert (observed["would: Spot"], observed["failed starts"]) == (4, 7)


def test_the_net_saving_adds_up_where_each_figure_is_rounded() -> None:
    made = report(daily(cost_e8=80_449, useful_e8=155_070))
    [row, _] = savings_table(made)
    assert (row["paid USD"], row["net USD"]) == (0.000804, 0.000746)
    assert row["on demand, without repeats, USD"] == 0.00155
    assert "0.001550" in as_table(made)


def test_a_deployments_name_is_text_in_prefects_table_whose_cells_are_markdown() -> None:
    name = "[etl](javascript:x) ![](http:\\\\a.b) www.a.b/spot\x1b"
    [row, _] = savings_table(report(daily(Deployment("d", name))))
    assert MarkdownIt("commonmark").renderInline(str(row["deployment"])) == name[:-1]


@pytest.mark.parametrize(
    ("usd", "text"), [("1234.5678", "1,234.57"), ("0", "0"), ("-0.00099985", "-0.001000")]
)
def test_small_amounts_are_not_rounded_to_nothing(usd: str, text: str) -> None:
    assert in_usd(Decimal(usd)) == text


@pytest.mark.parametrize(
    ("since", "first", "days"),
    [("7d", "2026-11-17", 7), ("4w", "2026-10-27", 28), ("2026-11-20", "2026-11-20", 4)],
)
def test_a_period_is_days_weeks_or_from_a_date(since: str, first: str, days: int) -> None:
    period = days_since(since, TODAY)
    assert (period[0].isoformat(), period[-1], len(period)) == (first, TODAY, days)


@pytest.mark.parametrize(
    "since", ["", "7", "0d", "500d", "9999w", "yesterday", "2027-01-01", "2020-01-01"]
)
def test_what_is_no_period_is_refused_with_what_is(since: str) -> None:
    with pytest.raises(RefusedError, match="is not a period: accepted are"):
        days_since(since, TODAY)


# How long it takes.

DAYS, DEPLOYMENTS = 30, 40
LONGEST_SECONDS = 3.0


def test_forty_deployments_in_thirty_days_are_reported_in_three_seconds() -> None:
    """However many tasks there were: a report reads a sum for each deployment and day."""
    days = days_between(TODAY - timedelta(days=DAYS - 1), TODAY)
    names = [f"etl/{number:02d}" for number in range(DEPLOYMENTS)]
    sums = [daily(Deployment(name, name), day) for day in days for name in names]
    bills = InMemoryBills(sums={(each.day, each.deployment.key, ""): each for each in sums})

    began = time.process_time()  # all of it is in this process, which others may hold up
    made = report_of(bills.read_sums(days), days[0], days[-1])
    as_json(as_mapping(made))
    as_table(made)
    took = time.process_time() - began

    assert made.total.counts.attempts == 2 * DAYS * DEPLOYMENTS
    assert len(made.rows) == DAYS * DEPLOYMENTS
    assert took < LONGEST_SECONDS, f"{took:.2f} s"
