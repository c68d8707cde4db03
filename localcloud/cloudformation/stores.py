"""The second half of `resources.py`: what keeps data, and what watches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from localcloud.cloudformation.resources import (
    ECS_AND_ITS_SURROUNDINGS,
    Client,
    Kind,
    Made,
    Properties,
    ResourceError,
    request,
    without,
)

# --- S3


def _put_bucket(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    """CloudFormation spells some of the properties differently from S3 itself."""
    s3, name = client("s3"), properties["BucketName"]
    s3.create_bucket(Bucket=name)
    for key, value in without(properties, "BucketName").items():
        match key:
            case "BucketEncryption":
                rules = [
                    {"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]}
                    for rule in value["ServerSideEncryptionConfiguration"]
                ]
                s3.put_bucket_encryption(
                    Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules}
                )
            case "PublicAccessBlockConfiguration":
                s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=value)
            case "OwnershipControls":
                s3.put_bucket_ownership_controls(Bucket=name, OwnershipControls=value)
            case "LifecycleConfiguration":
                s3.put_bucket_lifecycle_configuration(
                    Bucket=name,
                    LifecycleConfiguration={"Rules": [_lifecycle(r) for r in value["Rules"]]},
                )
            case _:
                raise ResourceError(f"Encountered unsupported property {key} in a bucket")
    return name, {"Arn": f"arn:aws:s3:::{name}"}


def _lifecycle(rule: dict[str, Any]) -> dict[str, Any]:
    plain = without(rule, "Id", "ExpirationInDays")
    return {
        **plain,
        "ID": rule["Id"],
        "Filter": {"Prefix": ""},
        "Expiration": {"Days": int(rule["ExpirationInDays"])},
    }


def _delete_bucket(client: Client, made: Made) -> None:
    client("s3").delete_bucket(Bucket=made.physical_id)  # fails while there is something in it


def _put_bucket_policy(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    bucket = properties["Bucket"]
    client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(properties["PolicyDocument"]))
    return bucket, {}


def _delete_bucket_policy(client: Client, made: Made) -> None:
    client("s3").delete_bucket_policy(Bucket=made.physical_id)


# --- DynamoDB


def _make_table(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    dynamodb = client("dynamodb")
    plain = without(properties, "TimeToLiveSpecification", "PointInTimeRecoverySpecification")
    table = dynamodb.create_table(**request(dynamodb, "create_table", plain))["TableDescription"]
    name = table["TableName"]
    if backups := properties.get("PointInTimeRecoverySpecification"):
        dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=backups)
    if time_to_live := properties.get("TimeToLiveSpecification"):
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=time_to_live)
    return name, {"Arn": table["TableArn"]}


def _delete_table(client: Client, made: Made) -> None:
    client("dynamodb").delete_table(TableName=made.physical_id)


# --- SQS, SNS


def _make_queue(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    """SQS takes numbers as text, and truth in lower case."""
    name, plain = properties["QueueName"], without(properties, "QueueName").items()
    attributes = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in plain}
    sqs = client("sqs")
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, {"Arn": answer["Attributes"]["QueueArn"], "QueueName": name, "QueueUrl": url}


def _delete_queue(client: Client, made: Made) -> None:
    client("sqs").delete_queue(QueueUrl=made.physical_id)


def _put_queue_policy(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    for url in properties["Queues"]:
        policy = {"Policy": json.dumps(properties["PolicyDocument"])}
        client("sqs").set_queue_attributes(QueueUrl=url, Attributes=policy)
    return properties["Queues"][0], {}


def _delete_queue_policy(client: Client, made: Made) -> None:
    for url in made.properties["Queues"]:
        client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})


def _make_topic(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    arn = client("sns").create_topic(Name=properties["TopicName"])["TopicArn"]
    return arn, {"TopicName": properties["TopicName"], "TopicArn": arn}


def _delete_topic(client: Client, made: Made) -> None:
    client("sns").delete_topic(TopicArn=made.physical_id)


def _make_subscription(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    sns = client("sns")
    answer = sns.subscribe(**request(sns, "subscribe", properties), ReturnSubscriptionArn=True)
    return answer["SubscriptionArn"], {}


def _delete_subscription(client: Client, made: Made) -> None:
    client("sns").unsubscribe(SubscriptionArn=made.physical_id)


# --- CloudWatch


def _put_alarm(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    cloudwatch = client("cloudwatch")
    name = properties["AlarmName"]
    cloudwatch.put_metric_alarm(**request(cloudwatch, "put_metric_alarm", properties))
    [alarm] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return name, {"Arn": alarm["AlarmArn"]}


def _delete_alarm(client: Client, made: Made) -> None:
    client("cloudwatch").delete_alarms(AlarmNames=[made.physical_id])


def _put_dashboard(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    cloudwatch = client("cloudwatch")
    cloudwatch.put_dashboard(**request(cloudwatch, "put_dashboard", properties))
    return properties["DashboardName"], {}


def _delete_dashboard(client: Client, made: Made) -> None:
    client("cloudwatch").delete_dashboards(DashboardNames=[made.physical_id])


KINDS: dict[str, Kind] = {
    **ECS_AND_ITS_SURROUNDINGS,
    "AWS::S3::Bucket": Kind(_put_bucket, _delete_bucket),
    "AWS::S3::BucketPolicy": Kind(_put_bucket_policy, _delete_bucket_policy),
    "AWS::DynamoDB::Table": Kind(_make_table, _delete_table),
    "AWS::SQS::Queue": Kind(_make_queue, _delete_queue),
    "AWS::SQS::QueuePolicy": Kind(_put_queue_policy, _delete_queue_policy),
    "AWS::SNS::Topic": Kind(_make_topic, _delete_topic),
    "AWS::SNS::Subscription": Kind(_make_subscription, _delete_subscription),
    "AWS::CloudWatch::Alarm": Kind(_put_alarm, _delete_alarm),
    "AWS::CloudWatch::Dashboard": Kind(_put_dashboard, _delete_dashboard),
}
"""Every type there is; another one makes the stack fail, as an unknown one does on AWS."""
