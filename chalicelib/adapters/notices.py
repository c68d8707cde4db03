"""Messages to the stage's alarm topic, bounded: a storm must not fill anybody's mailbox."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from botocore.exceptions import BotoCoreError

from chalicelib.adapters.records import Items, key, unpacked
from chalicelib.core.model.policy import Notify
from chalicelib.core.rescue.notification import Notification, subject_line

MOST: Final = 10
"""Messages of a kind within `WINDOW`; one more says that there are others."""
WINDOW: Final = timedelta(minutes=5)
_OTHERS: Final = {
    Notify.LOSSES: ("more runs lost", "the runs that are Crashed"),
    Notify.MOVES: ("more runs moved to on-demand", "the runs tagged spot-on-demand"),
}


class TopicNotices:
    """Publishes to an SNS topic what the setting NOTIFY wants; counts in the table."""

    def __init__(
        self,
        sns: Any,
        items: Items,
        topic_arn: str,
        stage: str,
        ui_url: str,
        wanted: Notify,
        now: Callable[[], datetime],
    ) -> None:
        self._sns, self._items, self._topic_arn = sns, items, topic_arn
        self._no_way: tuple[datetime, BotoCoreError] | None = None
        self._stage, self._ui_url, self._wanted, self._now = stage, ui_url, wanted, now

    def publish(self, notification: Notification) -> None:
        """Publish a message, if wanted. Raises botocore's errors.

        Where SNS does not answer, as in a VPC without a way to it, none is tried for a while: each
        takes seconds from the runs after it.
        """
        if self._wanted not in (Notify.ALL, notification.kind):
            return
        if self._no_way and self._now() - self._no_way[0] < WINDOW:
            raise self._no_way[1]
        count = self._count(notification.kind)
        title, text = notification.title, notification.text(self._ui_url)
        if count > MOST:
            title, which = _OTHERS[notification.kind]
            text = (
                f"{title}: {MOST} messages were sent within five minutes, and no others are until"
                f" these are over. Look at {which}: {self._ui_url}/runs\n"
            )
        if count > MOST + 1:
            return
        try:
            self._sns.publish(
                TopicArn=self._topic_arn,
                Subject=subject_line(self._stage, title),
                Message=f"{text}\nSent by prefect-spot, stage {self._stage}; see NOTIFY.\n",
            )
        except BotoCoreError as error:
            self._no_way = self._now(), error
            raise

    def _count(self, kind: Notify) -> int:
        """Count one more of a kind in this window; return how many there are."""
        window = int(self._now().timestamp() // WINDOW.total_seconds())
        expires = self._now() + timedelta(days=1)
        of = key("messages", kind.value, window)
        update = self._items.update(of, {"expires_at": int(expires.timestamp())}, {"sent": 1})
        answer = self._items.client.update_item(**update, ReturnValues="UPDATED_NEW")
        return int(unpacked(answer["Attributes"])["sent"])
