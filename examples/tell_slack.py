"""Makes a Prefect automation that notifies Slack when a run is moved to on-demand.

    SLACK_WEBHOOK_URL=https://hooks.slack.com/… python examples/tell_slack.py

The address is a secret: it is stored in a Prefect block. A second call replaces both.
"""

import os
import sys
from typing import Any

from prefect.automations import Automation
from prefect.blocks.fields import SecretDict
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

NAME = "prefect-spot: a run goes on on-demand"
EVENT = "prefect-spot.on-demand"


def escaped(value: str) -> str:
    """Return the template of a value on one line, without what Slack reads as link or mention.

    A run's name may be anyone's: `<!channel>` in it would call everybody. Source: Slack's
    documentation, "Formatting text for app surfaces", "Escaping text".
    """
    replaced = "replace('&', '&amp;') | replace('<', '&lt;') | replace('>', '&gt;')"
    return f"{{{{ ({value} | string).split() | join(' ') | {replaced} }}}}"


# The event is about an interruption, a placement that Spot refused, or a guard before the start.
WHY = (
    "'interruption ' ~ event.payload.interruption"
    " ~ ' (' ~ event.payload.allowed_on_spot ~ ' allowed on Spot)'"
    " if event.payload.interruption is defined"
    " else 'by its ' ~ event.payload.guard ~ ', before its start' if event.payload.guard is defined"
    " else 'Spot refused its placement'"
)
BODY = f"{escaped('flow_run.name')}, {escaped(WHY)}, flow run {escaped('flow_run.id')}"


def main() -> None:
    """Save the block, then the automation in place of an earlier one."""
    address = os.environ.get("SLACK_WEBHOOK_URL")
    if not address:
        sys.exit("SLACK_WEBHOOK_URL is not set: give the address of your Slack app's webhook in it")
    webhook = CustomWebhookNotificationBlock(
        name="prefect-spot",
        url="{{address}}",
        secrets=SecretDict({"address": address}),
        json_data={"text": "{{subject}}\n{{body}}"},
        headers=None,
        cookies=None,
    )
    block_id: Any = webhook.save("prefect-spot", overwrite=True)
    with get_client(sync_client=True) as client:
        for earlier in client.read_automations_by_name(NAME):
            client.delete_automation(earlier.id)
    Automation(
        name=NAME,
        trigger=EventTrigger(expect={EVENT}, posture=Posture.Reactive, threshold=1),
        actions=[SendNotification(block_document_id=block_id, subject=NAME, body=BODY)],
    ).create()


if __name__ == "__main__":
    main()
