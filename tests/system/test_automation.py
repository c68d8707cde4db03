"""The example's automation on a real server: a run that is moved to on-demand is told, once."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from localcloud.bootstrap import run_python
from localcloud.cloud import wait_for
from localcloud.deployment import PROJECT
from tests.e2e.scenario import Stage


class Slack(ThreadingHTTPServer):
    """Takes what an incoming webhook takes, and keeps its text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Webhook)
        self.texts: list[str] = []

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/B0/secret"


class Webhook(BaseHTTPRequestHandler):
    server: Slack

    def do_POST(self) -> None:  # http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.texts.append(json.loads(body)["text"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def slack() -> Iterator[Slack]:
    with Slack() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_slack_hears_of_a_run_that_goes_on_on_demand(stage: Stage, slack: Slack) -> None:
    program = [str(PROJECT / "examples" / "tell_slack.py")]
    user = {**stage.cloud.environment, "SLACK_WEBHOOK_URL": slack.webhook_url}
    for _ in range(2):  # the second replaces the first: else it would be told twice
        run_python(program, user)
    run = stage.start("waits", tags=("spot-retries:1",), interruptions=2)
    for number in (1, 2):
        run.wait_for_start(number)
        run.interrupt()
    finished = run.wait_for_end()
    wait_for("Slack", 60, lambda: slack.texts)
    [text] = slack.texts
    assert text.startswith("prefect-spot: a run goes on on-demand\n")
    assert f"{finished['name']}, interruption 2 (1 allowed on Spot)" in text
    assert run.id in text
