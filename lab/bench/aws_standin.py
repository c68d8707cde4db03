"""DynamoDB, SQS and ECS for both sides of a comparison, as far as they ask; a process of its own.

moto takes milliseconds of the machine's processors for each call, copies whole tables, and its
queues get slower as they grow: on two cores that would be measured, not the two sides. DynamoDB is
the tests' own, which passes the table's tests; queue and tasks are collections.

`python -m lab.bench.aws_standin PORT`
"""

import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from botocore.exceptions import ClientError
from starlette.requests import Request

from lab.bench.dynamodb import InMemoryDynamoDB
from lab.bench.http_server import Answer, serve

Json = Mapping[str, Any]

_WORDS: Final = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass
class AwsStandIn:
    """Answers AWS's JSON protocols, by the operation that the header X-Amz-Target names."""

    dynamodb: InMemoryDynamoDB = field(default_factory=InMemoryDynamoDB)
    tasks: dict[str, Json] = field(default_factory=dict)
    """ECS tasks by ARN, as DescribeTasks shows them."""
    messages: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    """Bodies that wait in the one queue there is."""
    in_flight: dict[str, str] = field(default_factory=dict)
    """Bodies that were received and are not deleted yet, by receipt handle."""
    listeners: int = 0
    """Receivers that wait for a message."""

    def usage(self) -> Json:
        """Return the number of messages that are not deleted, and of waiting receivers."""
        waiting = self.messages.qsize() + len(self.in_flight)
        return {"messages": waiting, "listeners": self.listeners}

    async def answer(self, request: Request) -> Answer:
        """Answer a request; /bench/messages and /bench/tasks add to queue and ECS."""
        body = json.loads(await request.body() or "{}")
        if request.url.path == "/bench/messages":
            for message in body:
                self.messages.put_nowait(message)
            return 200, {}
        if request.url.path == "/bench/tasks":
            self.tasks.update({task["taskArn"]: task for task in body})
            return 200, {}
        service, _, operation = request.headers["x-amz-target"].rpartition(".")
        if service.startswith("DynamoDB"):
            return self._answer_dynamodb(operation, body)
        match operation:
            case "DescribeTasks":
                return 200, self._describe(body["tasks"])
            case "ListTasks":
                return 200, self._list(body)
            case "GetQueueUrl":
                url = f"http://{request.headers['host']}/queue/{body['QueueName']}"
                return 200, {"QueueUrl": url}
            case "ReceiveMessage":
                return await self._receive()
            case "DeleteMessage":
                self.in_flight.pop(body["ReceiptHandle"], None)
                return 200, {}
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
            return 200, method(**body) or {}
        except ClientError as error:
            return _error(error.response["Error"]["Code"], str(error))

    async def _receive(self) -> Answer:
        """Give one message as soon as there is one, however long the request may wait."""
        self.listeners += 1
        body = await self.messages.get()
        self.listeners -= 1
        handle = str(uuid4())
        self.in_flight[handle] = body
        message = {"MessageId": handle, "ReceiptHandle": handle, "Body": body}
        return 200, {"Messages": [message]}


def _error(code: str, message: str) -> Answer:
    return 400, {"__type": f"bench#{code}", "message": message}


if __name__ == "__main__":
    stand_in = AwsStandIn()
    serve(int(sys.argv[1]), stand_in.answer, usage=stand_in.usage)
