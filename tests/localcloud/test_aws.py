"""The emulated AWS keeps DynamoDB's promises, which moto alone does not."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.dynamodb.models import DynamoDBBackend

from localcloud.aws import EmulatedAws
from tests.make import make_table


def test_conditional_puts_are_judged_one_at_a_time(
    aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    dynamodb = aws.client("dynamodb")
    make_table(dynamodb, "runs")
    at_work: list[int] = []
    together: list[int] = []
    original = DynamoDBBackend.put_item

    def slow_put_item(*args: Any, **kwargs: Any) -> Any:
        at_work.append(1)
        together.append(len(at_work))
        time.sleep(0.05)
        try:
            return original(*args, **kwargs)
        finally:
            at_work.pop()

    monkeypatch.setattr(DynamoDBBackend, "put_item", slow_put_item)

    def put(_: int) -> str:
        item, new = {"pk": {"S": "one"}}, "attribute_not_exists(pk)"
        try:
            dynamodb.put_item(TableName="runs", Item=item, ConditionExpression=new)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "won"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(put, range(4)))
    assert outcomes == ["ConditionalCheckFailedException"] * 3 + ["won"]
    assert together == [1, 1, 1, 1]


def test_a_transaction_of_which_one_write_is_refused_leaves_everything_as_it_was(
    aws: EmulatedAws,
) -> None:
    dynamodb = aws.client("dynamodb")
    make_table(dynamodb, "books")
    dynamodb.put_item(TableName="books", Item={"pk": {"S": "sum"}, "n": {"N": "1"}})
    dynamodb.put_item(TableName="books", Item={"pk": {"S": "bystander"}, "n": {"N": "5"}})
    before = dynamodb.scan(TableName="books")["Items"]

    def write(key: str, condition: str) -> None:
        add = {"UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
        new = {"Item": {"pk": {"S": key}}, "ConditionExpression": condition}
        dynamodb.transact_write_items(
            TransactItems=[
                {"Update": {"TableName": "books", "Key": {"pk": {"S": "sum"}}, **add}},
                {"Put": {"TableName": "books", "Item": {"pk": {"S": f"{key}'s twin"}}}},
                {"Put": {"TableName": "books", **new}},
            ]
        )

    with pytest.raises(dynamodb.exceptions.TransactionCanceledException):
        write("bill", "attribute_exists(pk)")
    assert dynamodb.scan(TableName="books")["Items"] == before
    write("bill", "attribute_not_exists(pk)")
    after = {item["pk"]["S"]: item.get("n") for item in dynamodb.scan(TableName="books")["Items"]}
    new = {"bill": None, "bill's twin": None}
    assert after == {"sum": {"N": "2"}, "bystander": {"N": "5"}, **new}
