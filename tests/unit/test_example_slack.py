"""The example's message to Slack: why, and text of others links, mentions and formats nothing."""

import runpy
from pathlib import Path

import pytest
from prefect.server.utilities.user_templates import render_user_template_sync

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "tell_slack.py"))
ID = "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("quick-fox", "quick-fox"),
        ("<!channel> <!here> <@U1>", "&lt;!channel&gt; &lt;!here&gt; &lt;@U1&gt;"),
        ("<http://x|Approve>", "&lt;http://x|Approve&gt;"),
        ("&lt;!channel&gt;", "&amp;lt;!channel&amp;gt;"),
        ("a\r\n\u2028b\tc", "a b c"),
        ("{{ flow_run.id }}", "{{ flow_run.id }}"),
    ],
)
def test_a_name_and_an_events_payload_are_only_text(text: str, shown: str) -> None:
    given = {
        "flow_run": {"name": text, "id": ID},
        "event": {"payload": {"interruption": text, "allowed_on_spot": 1}},
    }
    message = render_user_template_sync(EXAMPLE["BODY"], given)
    assert message == f"{shown}, interruption {shown} (1 allowed on Spot), flow run {ID}"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({"failed_start": 1, "kind": "refusal"}, "Spot refused its placement"),
        ({"guard": "deadline", "mode": "rescue"}, "by its deadline, before its start"),
    ],
)
def test_a_move_without_an_interruption_says_why(payload: dict[str, object], why: str) -> None:
    given = {"flow_run": {"name": "quick-fox", "id": ID}, "event": {"payload": payload}}
    message = render_user_template_sync(EXAMPLE["BODY"], given)
    assert message == f"quick-fox, {why}, flow run {ID}"
