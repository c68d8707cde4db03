"""The example's automation on a real server: a run that is moved to on-demand is reported, once."""

import sys
from typing import Any

from localcloud.cloud import wait_for
from localcloud.deployment import PROJECT, run_program
from tests.e2e.scenario import ATTEMPT_SECONDS, Stage
from tests.e2e.stories import story
from tests.unit.scripted_server import ScriptedServer, answer


@story
def moved_with_an_automation(stage: Stage) -> tuple[dict[str, Any], list[str]]:
    """Return the run, and what Slack was sent about it. The automation is left without a Slack."""
    program = [sys.executable, str(PROJECT / "examples" / "tell_slack.py")]
    with ScriptedServer([answer()]) as slack:
        webhook = {"SLACK_WEBHOOK_URL": f"{slack.url}/services/T0/B0/secret"}
        for _ in range(2):  # the second replaces the first: else there would be two messages
            run_program(program, {**stage.cloud.environment, **webhook})
        run = stage.start("waits", tags=("spot-retries:1",), interruptions=2)

        def texts() -> list[str]:
            return [seen.body["text"] for seen in slack.seen if run.id in seen.body["text"]]

        run.interrupt_each_start(2)
        run.completes(starts=3)
        wait_for("Slack", ATTEMPT_SECONDS, texts)
        return run.fields(), texts()


def test_slack_gets_one_message_about_a_run_that_goes_on_on_demand(
    moved_with_an_automation: tuple[dict[str, Any], list[str]],
) -> None:
    run, [text] = moved_with_an_automation
    assert text.startswith("prefect-spot: a run goes on on-demand\n")
    assert f"{run['name']}, interruption 2 (1 allowed on Spot)" in text
