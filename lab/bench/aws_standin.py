"""DynamoDB, SQS and ECS for both sides of a comparison, as far as they ask; a process of its own.

moto's server takes 8 ms of the machine's processors for each call, and its queues get slower as
they grow: on two cores that would be measured, not the two sides. Its tables without the server
take one; queue and tasks are collections.

`python -m lab.bench.aws_standin PORT`
"""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from botocore import xform_name
from moto.core.exceptions import JsonRESTError
from moto.dynamodb.responses import DynamoHandler
from starlette.requests import Request

from lab.bench.http_server import Answer, serve
from localcloud.aws import EmulatedAws
from localcloud.bootstrap import STACK

Json = Mapping[str, Any]

_TABLE: Final = {
    "TableName": STACK,
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


class AwsStandIn:
    """Answers AWS's JSON protocols, by the operation that the header X-Amz-Target names."""

    def __init__(self) -> None:
        self._tasks: dict[str, Json] = {}  # by ARN, as DescribeTasks shows them
        self._messages: asyncio.Queue[str] = asyncio.Queue()  # bodies that wait in the one queue
        self._in_flight: dict[str, str] = {}  # received and not deleted yet, by receipt handle
        self._listeners = 0  # receivers that wait for a message
        self._dynamodb: Any = DynamoHandler()
        self._dynamodb.current_account = EmulatedAws.account
        self._dynamodb.region = EmulatedAws.region
        self._answer_dynamodb("CreateTable", _TABLE)

    def usage(self) -> Json:
        """Return the number of messages that are not deleted, and of waiting receivers."""
        waiting = self._messages.qsize() + len(self._in_flight)
        return {"messages": waiting, "listeners": self._listeners}

    async def answer(self, request: Request, body: Any) -> Answer:
        """Answer a request; /bench/messages and /bench/tasks add to queue and ECS."""
        match request.url.path:
            case "/bench/messages":
                for message in body:
                    self._messages.put_nowait(message)
                return 200, {}
            case "/bench/tasks":
                self._tasks.update({task["taskArn"]: task for task in body})
                return 200, {}
        service, _, operation = request.headers["x-amz-target"].rpartition(".")
        if service.startswith("DynamoDB"):
            return self._answer_dynamodb(operation, body)
        match operation:
            case "DescribeTasks":
                found = {arn: self._tasks.get(arn) for arn in body["tasks"]}
                missing = [{"arn": x, "reason": "MISSING"} for x, task in found.items() if not task]
                return 200, {"tasks": list(filter(None, found.values())), "failures": missing}
            case "ListTasks":
                return 200, self._list(body)
            case "GetQueueUrl":
                url = f"http://{request.headers['host']}/queue/{body['QueueName']}"
                return 200, {"QueueUrl": url}
            case "ReceiveMessage":
                return 200, {"Messages": [await self._receive()]}
            case "DeleteMessage":
                self._in_flight.pop(body["ReceiptHandle"], None)
                return 200, {}
        return 400, {"__type": "bench#UnknownOperationException", "message": operation}

    def _list(self, body: Json) -> Json:
        wanted, start = body["desiredStatus"], int(body.get("nextToken", 0))
        arns = [arn for arn, task in self._tasks.items() if task["desiredStatus"] == wanted]
        end = start + body["maxResults"]
        more = {"nextToken": str(end)} if end < len(arns) else {}
        return {"taskArns": arns[start:end], **more}

    def _answer_dynamodb(self, operation: str, body: Json) -> Answer:
        self._dynamodb.body = body
        try:
            return 200, getattr(self._dynamodb, xform_name(operation))().result
        except JsonRESTError as error:
            return 400, {"__type": error.error_type, "message": error.message}

    async def _receive(self) -> Json:
        """Give one message as soon as there is one, however long the request may wait."""
        self._listeners += 1
        body = await self._messages.get()
        self._listeners -= 1
        handle = str(uuid4())
        self._in_flight[handle] = body
        return {"MessageId": handle, "ReceiptHandle": handle, "Body": body}


if __name__ == "__main__":
    stand_in = AwsStandIn()
    serve(int(sys.argv[1]), stand_in.answer, usage=stand_in.usage)
