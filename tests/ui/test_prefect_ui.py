"""What a person sees of a rescued run in Prefect's UI, and its screenshots for the documentation.

The pictures in `docs/images` are written anew each time.
"""

import re
from typing import Final

import pytest
from playwright.sync_api import Locator, Page, expect

from localcloud.deployment import PROJECT
from tests.ui import picture
from tests.ui.conftest import WIDTH, Played, Visit

pytestmark = pytest.mark.timeout(1800)

IMAGES: Final = PROJECT / "docs" / "images"
LARGEST_BYTES: Final = 200_000

TALL: Final = 1240
"""Pixels: a page with the run's graph and all of our lines in its log."""

RUNNING: Final = (9, 67, 155)
COMPLETED: Final = (33, 157, 75)
"""The colours of these states in the bar below the run's graph."""

LAST: Final = "Spot interruption 3 (allowed on Spot: 2)"


def save(page: Page, name: str, part: Locator | None = None) -> float:
    """Save a screenshot, or one of a part, for the documentation; return its brightness, of 255."""
    file = IMAGES / f"{name}.png"
    shot = picture.of(part or page, page)
    picture.save(shot, file)
    assert shot.width <= WIDTH
    assert file.stat().st_size < LARGEST_BYTES
    return picture.brightness(shot)


def open_run(page: Page, played: Played) -> None:
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("link", name=played.run["name"]).first.click()
    expect(page.get_by_role("tab", name="Logs")).to_be_visible()


def open_tab(page: Page, name: str) -> Locator:
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_role("tabpanel", name=name, exact=True)


@pytest.fixture
def run_page(visit: Visit, played: Played) -> Page:
    page = visit(height=TALL)
    open_run(page, played)
    return page


def test_the_password_that_was_printed_is_needed(visit: Visit, played: Played) -> None:
    page = visit()
    page.evaluate("localStorage.clear()")
    page.goto(played.ui_url)
    expect(page.get_by_placeholder("admin:pass")).to_be_visible()


def test_the_run_is_completed_and_its_tags_say_how(run_page: Page, played: Played) -> None:
    expect(run_page.get_by_text(played.run["name"], exact=True).first).to_be_visible()
    expect(run_page.get_by_text("Completed", exact=True).first).to_be_visible()
    for tag in ("spot-interrupted", "spot-on-demand"):
        expect(run_page.get_by_text(tag, exact=True).first).to_be_visible()
    details = open_tab(run_page, "Details")
    expect(details.get_by_role("term").first).to_have_text("Run Count")
    expect(details.get_by_role("definition").first).to_have_text("4")


def test_the_state_bar_shows_four_spells_of_running_and_ends_completed(run_page: Page) -> None:
    graph = run_page.locator("canvas").first
    expect(graph).to_be_visible()
    shown = picture.of(graph, run_page)
    bar = picture.stretches(shown, y=shown.height - 4)
    assert [picture.is_like(colour, RUNNING) for colour in bar].count(True) == 4, bar
    assert picture.is_like(bar[-1], COMPLETED), bar


def test_what_was_done_is_not_done_again(run_page: Page) -> None:
    tasks = open_tab(run_page, "Task Runs")
    done = re.compile(r"(\d+) Cached, (\d+) Completed")
    expect(tasks).to_contain_text(done)
    found = done.search(tasks.inner_text())
    assert found
    assert int(found[1]) >= int(found[2]) == 5, "four days and the rates, once each, else found"
    children = open_tab(run_page, "Subflow Runs")
    expect(children.get_by_text("exchange-rates")).to_have_count(1)


def test_the_log_names_each_interruption_and_what_came_of_it(run_page: Page) -> None:
    log = open_tab(run_page, "Logs")
    log.get_by_role("combobox").filter(has_text="Level").click()
    run_page.get_by_role("option", name="Warning and above").click()
    for begins, ends in (
        ("Spot interruption 1 of 2", "Next: rerun on FARGATE_SPOT. Why: 1 of 2"),
        ("Spot interruption 2 of 2", "Next: rerun on FARGATE_SPOT. Why: 2 of 2"),
        (LAST, "Next: rerun on FARGATE. Why: the 2"),
    ):
        line = re.compile(f"{re.escape(begins)}.*{re.escape(ends)}")
        expect(log.get_by_text(line)).to_have_count(1)
        expect(log.get_by_text(line)).to_be_in_viewport(ratio=1)
    save(run_page, "flow-run")


def test_the_job_variables_say_where_it_ran_last(run_page: Page) -> None:
    variables = open_tab(run_page, "Job Variables")
    expect(variables).to_contain_text('"launch_type": "FARGATE"')
    expect(variables).not_to_contain_text("FARGATE_SPOT")


@pytest.mark.parametrize(
    ("scheme", "image"), [("light", "artifact"), ("dark", "artifact-dark")], ids=["light", "dark"]
)
def test_the_artifact_is_a_heading_a_table_and_two_sentences(
    visit: Visit, played: Played, scheme: str, image: str
) -> None:
    page = visit(scheme=scheme)
    open_run(page, played)
    artifacts = open_tab(page, "Artifacts")
    # Each version is a card; they stand in no order, and all lead to the list of versions.
    artifacts.get_by_role("link").filter(has_text="Next: rerun on FARGATE.").first.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    check_markdown(page.get_by_test_id("markdown-display"))
    assert (save(page, image) < 128) is (scheme == "dark")


def test_the_artifact_is_right_in_the_older_ui_too(visit: Visit, played: Played) -> None:
    page = visit()
    page.goto(f"{played.ui_url}/artifacts/key/spot-interruption-{played.run['id'][:8]}")
    expect(page.get_by_text("Switch to V2 UI")).to_be_visible()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    check_markdown(page.get_by_role("article").filter(has=page.get_by_role("table")))


def check_markdown(shown: Locator) -> None:
    """See that Markdown was made of it: none of its signs is left to be seen."""
    expect(shown.get_by_role("heading", level=2)).to_have_text(LAST)
    table = shown.get_by_role("table")
    expect(table.get_by_role("columnheader")).to_have_text(
        ["Cause", "Spot interruption: Your Spot Task was interrupted."]
    )
    expect(table.get_by_role("row")).to_have_count(6)
    expect(table.get_by_role("row").nth(2)).to_contain_text("FARGATE_SPOT")
    expect(table.get_by_role("row").nth(5)).to_contain_text(
        re.compile(r"\d+ s until the exit, 0\.0\d+ USD, estimated")
    )
    bold = re.compile("[6-9]00")
    for label in ("What happens next:", "Why:"):
        expect(shown.get_by_text(label, exact=True)).to_have_css("font-weight", bold)
    expect(shown).to_contain_text("rerun on FARGATE.")
    assert not set(shown.inner_text()) & set("|\\*#`<>"), shown.inner_text()


def test_the_savings_are_a_table_with_a_row_per_deployment(visit: Visit) -> None:
    page = visit(width=WIDTH * 3 // 2)  # a third of which is not the table's
    page.goto(f"{page.url.partition('/dashboard')[0]}/artifacts")
    page.get_by_role("link").filter(has_text="spot-savings").first.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    table = page.get_by_role("table")
    expect(table.get_by_role("row")).to_have_count(4)
    head = table.get_by_role("columnheader").all_inner_texts()
    rows = [
        dict(zip(head, row.get_by_role("cell").all_inner_texts(), strict=True))
        for row in table.get_by_role("row").all()[1:]
    ]
    shown = [(r["deployment"].strip(), int(r["interrupted"]), int(r["tasks"])) for r in rows]
    assert shown == [("exchange-rates/spot", 0, 1), ("nightly-sales/spot", 3, 4), ("all", 3, 5)]
    assert all(float(row["net USD"]) > 0 for row in rows)
    for title in table.get_by_role("columnheader").all():
        expect(title).to_be_in_viewport(ratio=1)
    save(page, "savings-table", table)
