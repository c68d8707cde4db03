"""Steps of an act's own: what is done before or during it, and what is looked at after."""

import json
import re
from collections import Counter
from typing import Any

import httpx
from markdown_it import MarkdownIt

from localcloud.bootstrap import STACK
from localcloud.cloud import REACT, Cloud, wait_for
from localcloud.events import Event
from localcloud.lambdas import Invocation
from tests.make import make_event
from tests.system.mischief import HOSTILE_TEXTS, KILOBYTE, MALFORMED
from tests.system.world import Scene

OURS_IN_MARKDOWN = {
    *("inline", "text", "text_special", "strong_open", "strong_close"),
    *("heading_open", "heading_close", "paragraph_open", "paragraph_close"),
    *("table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close"),
    *("tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close"),
}
ROWS = 7
"""Of the artifact's table, its head included."""

A_TRACES_FRAME = re.compile(r"\\n|[\n\r\u00a0]")
"""Ends one, as our logger and Lambda's runtime print them: how many they are, no event decides."""

LINKED_BARE = re.compile(r"(https?|ftp)://|www\.|[\w.+-]+@[\w-]+\.\w")
"""What the UI's Markdown (GFM) makes a link of without any markup."""


def send(cloud: Cloud, method: str, path: str, body: object = None) -> httpx.Response:
    """Ask Prefect as a user would, with the user's credential."""
    user, _, password = cloud.environment["PREFECT_API_AUTH_STRING"].partition(":")
    url = cloud.environment["PREFECT_API_URL"] + path
    answer = httpx.request(method, url, json=body, auth=(user, password), trust_env=False)
    return answer.raise_for_status()


def retry_after_was_waited_for(scene: Scene) -> None:
    seconds = [round(i.seconds, 1) for i in scene.invocations()]
    assert max(seconds) >= 2, f"two times one second was asked for: {seconds}"


def replace_the_credential_once_refused(scene: Scene) -> None:
    """The warning and both exit events are refused; then, before Lambda's next try, no more."""
    wait_for("the refusals", 60, lambda: len(_reactions(scene)) >= 3)
    scene.change_conditions()


def was_refused_by_name_with_a_fresh_credential_too(scene: Scene) -> None:
    """Another act has SSM throttled meanwhile: the fresh credential may not be readable."""
    refused, unreadable = 0, 0
    for invocation in _reactions(scene):
        if invocation.error and invocation.error["errorType"] != "LeaseHeldError":
            refused += invocation.error["errorType"] == "PrefectRefusedError"
            unreadable += invocation.error["errorType"] == "SecretUnreadableError"
            assert "PREFECT_API_AUTH_STRING_PARAMETER" in invocation.error["errorMessage"]
    assert refused, "no try was refused"
    asked = Counter(
        exchange.path
        for exchange in scene.world.prefect.exchanges
        if scene.run.id in exchange.path and exchange.status == 401
    )
    history = f"/api/flow_run_states/?flow_run_id={scene.run.id}"  # which only they read
    assert asked[history] >= 2 * refused + unreadable, "once, and once with a fresh credential"
    assert max(asked.values()) <= 2 * len(_reactions(scene))


def _reactions(scene: Scene) -> list[Invocation]:
    return [i for i in scene.invocations() if i.function == REACT]


def malformed_events_failed_nowhere(scene: Scene) -> None:
    """One that is good enough to be handled may find another handler at work, and come again."""
    tries = [i for i in scene.world.cloud.lambdas.invocations if i.event.get("id") == MALFORMED]
    assert tries
    failures = [i.error for i in tries if i.error]
    assert all(error["errorType"] == "LeaseHeldError" for error in failures), failures


def tell_of_other_clusters_and_accounts(scene: Scene) -> None:
    """News of stopped tasks elsewhere, with this very run's id in them: nothing happens."""
    cloud, run_id = scene.world.cloud, scene.run.id
    before, states = cloud.prefect.run(run_id), cloud.prefect.history(run_id)
    cluster = cloud.aws.client("ecs").describe_clusters(clusters=["prefect-spot-dev"])
    arn = cluster["clusters"][0]["clusterArn"]
    for stranger in (
        arn.replace("prefect-spot-dev", "others"),
        arn.replace(cloud.aws.account, "9" * 12),
    ):
        for status in ("RUNNING", "DEPROVISIONING", "STOPPED"):
            answer = cloud.lambdas.invoke(REACT, _news_from(stranger, run_id, status))
            assert (answer.status, answer.answer["decision"]) == ("ok", "ignore"), answer
    after = cloud.prefect.run(run_id)
    for name in ("state", "job_variables", "tags", "labels", "empirical_policy"):
        assert after[name] == before[name], name
    assert cloud.prefect.history(run_id) == states


def give_the_run_a_hostile_name(scene: Scene) -> None:
    name = {"name": " ".join(HOSTILE_TEXTS)}
    send(scene.world.cloud, "PATCH", f"/flow_runs/{scene.run.id}", name)


def everything_written_is_short(scene: Scene) -> None:
    cloud, run_id = scene.world.cloud, scene.run.id
    longest = {
        "artifact": len(cloud.prefect.annotation(run_id)),
        "log line": max(len(line["message"]) for line in cloud.prefect.logs(run_id)),
        "state message": max(len(s["message"] or "") for s in cloud.prefect.history(run_id)),
        "event": max(len(json.dumps(event)) for event in ours(cloud, run_id)),
        "Lambda's log line": max(
            len(part) for line in _printed(scene) for part in A_TRACES_FRAME.split(line)
        ),
        "item in the table": len(json.dumps(_item(cloud, run_id))),
    }
    too_long = {name: length for name, length in longest.items() if length > 4 * KILOBYTE}
    assert not too_long, f"longer than 4 KB: {too_long}"


def no_markup_of_strangers(scene: Scene) -> None:
    cloud, run_id = scene.world.cloud, scene.run.id
    markdown = cloud.prefect.annotation(run_id)
    assert "alert" in markdown, "no hostile text got as far as the artifact: this shows nothing"
    parsed = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    kinds = {token.type for token in parsed}
    kinds |= {child.type for token in parsed for child in token.children or ()}
    assert kinds <= OURS_IN_MARKDOWN, kinds - OURS_IN_MARKDOWN
    shape = Counter(token.type for token in parsed)
    assert (shape["heading_open"], shape["tr_open"], shape["td_open"]) == (1, ROWS, 2 * (ROWS - 1))
    linked = LINKED_BARE.search(markdown)
    assert not linked, f"a link in the UI: {linked}"
    for line in _printed(scene):
        assert line.isprintable(), line
        if not line.startswith("[ERROR] LeaseHeldError"):  # that is the runtime's own
            assert json.loads(line)["level"] in ("INFO", "ERROR", "WARNING"), line
    ours_logged = [x for x in cloud.prefect.logs(run_id) if x["name"] == "prefect-spot"]
    told = [line["message"] for line in ours_logged]
    told += [state["message"] or "" for state in cloud.prefect.history(run_id)]
    told += [str(event["payload"]["availability_zone"]) for event in ours(cloud, run_id)]
    assert all(text.isprintable() for text in told)


def ours(cloud: Cloud, run_id: str) -> list[dict[str, Any]]:
    """The newest events of ours about the run."""
    return [e for e in cloud.prefect.events(run_id) if e["event"].startswith("prefect-spot.")]


def _printed(scene: Scene) -> list[str]:
    return [line for i in scene.invocations() for line in i.logs if scene.run.id in line]


def _item(cloud: Cloud, run_id: str) -> dict[str, Any]:
    key = {"pk": {"S": f"run#{run_id}"}}
    return dict(cloud.aws.client("dynamodb").get_item(TableName=STACK, Key=key)["Item"])


def _news_from(cluster_arn: str, run_id: str, status: str) -> Event:
    task_arn = cluster_arn.replace(":cluster/", ":task/") + "/0123456789abcdef0123456789abcdef"
    environment = [{"name": "PREFECT__FLOW_RUN_ID", "value": run_id}]
    container = {"name": "prefect", "environment": environment}
    return make_event(
        {
            "taskArn": task_arn,
            "clusterArn": cluster_arn,
            "lastStatus": status,
            "overrides": {"containerOverrides": [container]},
        }
    )
