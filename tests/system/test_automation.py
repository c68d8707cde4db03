"""The example's automation on a real server: a run that is moved to on-demand is told, once."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from localcloud.cloud import wait_for
from localcloud.deployment import PROJECT, run_program
from tests.e2e.scenario import ATTEMPT_SECONDS, Stage
from tests.system.plays import Play, Playbill


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


@contextmanager
def slack() -> Iterator[Slack]:
    with Slack() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def moved_to_on_demand(stage: Stage) -> tuple[dict[str, Any], list[str]]:
    """Return the run, and what Slack was sent about it. The automation is left without a Slack."""
    program = [str(PROJECT / "examples" / "tell_slack.py")]
    with slack() as server:
        user = {**stage.cloud.environment, "SLACK_WEBHOOK_URL": server.webhook_url}
        for _ in range(2):  # the second replaces the first: else there would be two messages
            run_program([sys.executable, *program], user)
        run = stage.start("waits", tags=("spot-retries:1",), interruptions=2)

        def texts() -> list[str]:
            return [text for text in list(server.texts) if run.id in text]

        run.interrupt_each_start(2)
        assert run.wait_for_end()["state_type"] == "COMPLETED"
        wait_for("Slack", ATTEMPT_SECONDS, texts)
        return stage.cloud.prefect.run(run.id), texts()


MOVED_TO_ON_DEMAND = Play("moved to on-demand, and Slack is sent a message", moved_to_on_demand)
PLAYS = (MOVED_TO_ON_DEMAND,)


def test_slack_hears_of_a_run_that_goes_on_on_demand(playbill: Playbill) -> None:
    run, [text] = playbill.result(MOVED_TO_ON_DEMAND)
    assert text.startswith("prefect-spot: a run goes on on-demand\n")
    assert f"{run['name']}, interruption 2 (1 allowed on Spot)" in text
