"""An invocation of a Lambda in this process, and the wiring as a new environment begins."""

from chalicelib import wiring
from tests.make import ACCOUNT


class Context:
    """An invocation with time for every try: no test waits between two of them."""

    aws_request_id = "c0ffee00-0000-4000-8000-000000000001"
    invoked_function_arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:prefect-spot-dev-react"

    def __init__(self, milliseconds_left: int = 60_000) -> None:
        self.milliseconds_left = milliseconds_left

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds_left


def forget() -> None:
    """Make the wiring read its settings again, as a new Lambda environment does."""
    for part in vars(wiring).values():
        if hasattr(part, "cache_clear"):
            part.cache_clear()
