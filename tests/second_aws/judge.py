"""Asks MiniStack's own matcher and IAM engine, many questions at once; run with its Python.

python judge.py patterns|iam|resource < questions.json > answers.json
"""

import json
import sys
from typing import Any

from ministack.core import iam_actions, iam_evaluator
from ministack.services import eventbridge


def matches(pattern: str, event: Any) -> bool | str:
    """As TestEventPattern answers; the complaint about a pattern that it refuses."""
    _, _, body = eventbridge._test_event_pattern(
        {"EventPattern": pattern, "Event": json.dumps(event)}
    )
    answer = json.loads(body)
    return answer["Result"] if "Result" in answer else str(answer)


def is_allowed(policies: list[Any], request: dict[str, Any]) -> bool:
    """Whether policies, as documents, allow the role that has them one request."""
    context = iam_evaluator.EvalContext(
        principal_arn=request["principal"],
        principal_type="AssumedRole",
        principal_account=request["account"],
        action=request["action"],
        resource_arn=request["resource"],
        region=request["region"],
        service_context={key.lower(): value for key, value in request["context"].items()},
    )
    parsed = [iam_evaluator.parse_policy_document(policy) for policy in policies]
    return bool(iam_evaluator.evaluate(context, parsed).decision == "Allow")


def resource_of(service: str, body: str, region: str, account: str) -> str:
    """The resource on which MiniStack itself authorises a request."""
    about: dict[str, str] = {}
    return str(
        iam_actions.extract_resource_arn(
            service, "POST", "/", about, body.encode(), about, region, account
        )
    )


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    kinds: dict[str, Any] = {"patterns": matches, "iam": is_allowed, "resource": resource_of}
    answer = kinds[sys.argv[1]]
    json.dump([answer(*question) for question in asked], sys.stdout)
