"""DynamoDB, SQS and ECS for both sides of a comparison, as far as they ask; a process of its own.

moto takes milliseconds of the machine's processors for each call, copies whole tables, and its
queues get slower as they grow: on two cores that would be measured, not the two sides. DynamoDB is
the tests' own, which passes the table's tests; queue and tasks are a deque and a dictionary.

`python -m lab.bench.aws_standin PORT`
"""

import asyncio
import json
import re
import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from botocore.exceptions import ClientError

from lab.bench.dynamodb import InMemoryDynamoDB
from lab.bench.http_server import Answer, Request, Service, serve

Json = Mapping[str, Any]

_BENCH: Final = "/bench/"
_WORDS: Final = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass
class AwsStandIn:
    """Answers AWS's JSON protocols, by the operation that the header X-Amz-Target names."""

    dynamodb: InMemoryDynamoDB = field(default_factory=InMemoryDynamoDB)
    tasks: dict[str, Json] = field(default_factory=dict)
    """ECS tasks by ARN, as DescribeTasks shows them."""
    messages: deque[str] = field(default_factory=deque)
    """Bodies that wait in the one queue there is."""
    in_flight: dict[str, str] = field(default_factory=dict)
    """Bodies that were received and not deleted yet, by receipt handle."""
    requests: Counter[str] = field(default_factory=Counter)
    _waiting: deque[asyncio.Future[Answer]] = field(default_factory=deque)

    def handle(self, request: Request) -> Answer | asyncio.Future[Answer]:
        """Answer a request."""
        body = json.loads(request.body) if request.body else {}
        if request.path.startswith(_BENCH):
            return self._answer_bench(request.path.removeprefix(_BENCH), body)
        service, _, operation = request.headers["x-amz-target"].rpartition(".")
        self.requests[operation] += 1
        if service.startswith("DynamoDB"):
            return self._answer_dynamodb(operation, body)
        match operation:
            case "DescribeTasks":
                return Answer(200, self._describe(body["tasks"]))
            case "ListTasks":
                return Answer(200, self._list(body))
            case "GetQueueUrl":
                url = f"http://{request.headers['host']}/queue/{body['QueueName']}"
                return Answer(200, {"QueueUrl": url})
            case "ReceiveMessage":
                return self._receive()
            case "DeleteMessage":
                self.in_flight.pop(body["ReceiptHandle"], None)
                return Answer(200, {})
        return _error("UnknownOperationException", f"{operation} is not emulated")

    def _list(self, body: Json) -> Json:
        wanted, start = body["desiredStatus"], int(body.get("nextToken", 0))
        arns = [arn for arn, task in self.tasks.items() if task["desiredStatus"] == wanted]
        end = start + body["maxResults"]
        more = {"nextToken": str(end)} if end < len(arns) else {}
        return {"taskArns": arns[start:end], **more}

    def _describe(self, arns: Sequence[str]) -> Json:
        return {
            "tasks": [self.tasks[arn] for arn in arns if arn in self.tasks],
            "failures": [{"arn": x, "reason": "MISSING"} for x in arns if x not in self.tasks],
        }

    def _answer_dynamodb(self, operation: str, body: Json) -> Answer:
        method = getattr(self.dynamodb, _WORDS.sub("_", operation).lower(), None)
        if method is None:
            return _error("UnknownOperationException", f"{operation} is not emulated")
        try:
            return Answer(200, method(**body) or {})
        except ClientError as error:
            return _error(error.response["Error"]["Code"], str(error))

    def _receive(self) -> Answer | asyncio.Future[Answer]:
        """Give one message; where there is none, wait for one. The longest wait is not kept to."""
        if self.messages:
            return self._hand_out(self.messages.popleft())
        later: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append(later)
        return later

    def _hand_out(self, body: str) -> Answer:
        handle = str(uuid4())
        self.in_flight[handle] = body
        return Answer(
            200, {"Messages": [{"MessageId": handle, "ReceiptHandle": handle, "Body": body}]}
        )

    def _answer_bench(self, name: str, body: Any) -> Answer:
        """Answer the benchmark itself: what is asked here is not counted."""
        match name:
            case "messages":
                self._put(body)
                return Answer(200, {})
            case "tasks":
                self.tasks.update({task["taskArn"]: task for task in body})
                return Answer(200, {})
            case "usage":
                usage = {
                    "requests": dict(self.requests),
                    "messages": len(self.messages) + len(self.in_flight),
                    "listeners": len(self._waiting),
                }
                return Answer(200, usage)
        return _error("UnknownOperationException", name)

    def _put(self, bodies: Sequence[str]) -> None:
        self.messages.extend(bodies)
        while self.messages and self._waiting:
            self._waiting.popleft().set_result(self._hand_out(self.messages.popleft()))


def _error(code: str, message: str) -> Answer:
    return Answer(400, {"__type": f"bench#{code}", "message": message})


if __name__ == "__main__":
    serve(Service(AwsStandIn().handle), int(sys.argv[1]))
