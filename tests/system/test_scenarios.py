"""Nothing is lost and nothing is run twice, whatever happens around an interruption.

The scenarios of a cloud all go on at the same time; the oracle judges each one's runs.
"""

from collections.abc import Mapping

from localcloud.cloud import REACT
from localcloud.oracle import judge
from tests.e2e.scenario import IDLE_SECONDS, Stage
from tests.e2e.stories import STORIES, Stories, Story
from tests.faults.ledger import Ledger
from tests.system import faults, observer, people

SCENARIOS: dict[str, Mapping[str, Story]] = {
    "ordinary": people.SCENARIOS,
    "observed": observer.SCENARIOS,
    "simulated": faults.SCENARIOS,
}
CLOUDS = tuple(SCENARIOS)
for _scenarios in SCENARIOS.values():
    STORIES.update(_scenarios)

LEDGER = Ledger("system")


def test_nothing_is_lost_and_nothing_run_twice(
    stage: Stage, stories: Stories, scenario: str
) -> None:
    runs = stories.result(scenario)
    verdict = judge(*(stage.cloud.observe(run.id) for run in runs))
    LEDGER.note(scenario, verdict, stories.seconds[scenario])
    assert not verdict.findings, verdict


def test_once_all_is_quiet_the_verdict_is_the_same(stage: Stage, stories: Stories) -> None:
    stories.wait_for_all()
    stage.sweep()
    stage.sweep()
    stage.cloud.lambdas.wait_idle(IDLE_SECONDS)
    runs = stories.runs(STORIES)
    verdict = judge(*(stage.cloud.observe(run.id) for run in runs))
    assert not verdict.findings, verdict
    # Of many events about one task, one may three times find another being handled.
    given_up = [i.error for i in stage.cloud.lambdas.exhausted if i.error and i.function == REACT]
    assert [error for error in given_up if error["errorType"] != "LeaseHeldError"] == []
