"""What the emulated AWS says of a stack's resources, asked of each service, not of CloudFormation.

Every answer is spelt as a template spells it, so that the two can be laid beside each other.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from localcloud.aws import EmulatedAws

Reading = Callable[[EmulatedAws, str], dict[str, Any]]


def spelt(value: Any) -> Any:
    """An API's lowerCamelCase as the template's UpperCamelCase; the keys of maps stay."""
    match value:
        case dict():
            return {
                name[:1].upper() + name[1:]: inner if name == "options" else spelt(inner)
                for name, inner in value.items()
            }
        case list():
            return [spelt(inner) for inner in value]
        case _:
            return value


def cluster(aws: EmulatedAws, name: str) -> dict[str, Any]:
    [found] = aws.client("ecs").describe_clusters(clusters=[name])["clusters"]
    return {**spelt(found), "Arn": found["clusterArn"]}


def task_definition(aws: EmulatedAws, arn: str) -> dict[str, Any]:
    ecs = aws.client("ecs")
    found: dict[str, Any] = spelt(
        ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]
    )
    return found


def service(aws: EmulatedAws, arn: str) -> dict[str, Any]:
    _, cluster, name = arn.split("/")
    [found] = aws.client("ecs").describe_services(cluster=cluster, services=[name])["services"]
    read = spelt(found)
    return {**read, "Cluster": cluster, "Name": name}


def role(aws: EmulatedAws, name: str) -> dict[str, Any]:
    iam = aws.client("iam")
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    inline = [
        iam.get_role_policy(RoleName=name, PolicyName=policy)
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    ]
    return {
        **iam.get_role(RoleName=name)["Role"],
        "ManagedPolicyArns": [policy["PolicyArn"] for policy in attached],
        "Policies": [{k: p[k] for k in ("PolicyName", "PolicyDocument")} for p in inline],
    }


def log_group(aws: EmulatedAws, name: str) -> dict[str, Any]:
    [found] = aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return {"LogGroupName": found["logGroupName"], "RetentionInDays": found["retentionInDays"]}


def security_group(aws: EmulatedAws, group_id: str) -> dict[str, Any]:
    [found] = aws.client("ec2").describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    egress = [
        {"IpProtocol": permission["IpProtocol"], **addresses}
        for permission in found["IpPermissionsEgress"]
        for addresses in permission["IpRanges"]
    ]
    return {
        "GroupDescription": found["Description"],
        "VpcId": found["VpcId"],
        "GroupId": group_id,
        "SecurityGroupEgress": egress,
        "SecurityGroupIngress": found["IpPermissions"],
    }


def bucket(aws: EmulatedAws, name: str) -> dict[str, Any]:
    s3 = aws.client("s3")
    of_it = {"Bucket": name}
    encryption = s3.get_bucket_encryption(**of_it)["ServerSideEncryptionConfiguration"]["Rules"]
    lifecycle = s3.get_bucket_lifecycle_configuration(**of_it)["Rules"]
    return {
        "BucketName": s3.head_bucket(**of_it) and name,
        "Arn": f"arn:aws:s3:::{name}",
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {"ServerSideEncryptionByDefault": rule["ApplyServerSideEncryptionByDefault"]}
                for rule in encryption
            ]
        },
        "PublicAccessBlockConfiguration": s3.get_public_access_block(**of_it)[
            "PublicAccessBlockConfiguration"
        ],
        "OwnershipControls": s3.get_bucket_ownership_controls(**of_it)["OwnershipControls"],
        "LifecycleConfiguration": {
            "Rules": [
                {**rule, "Id": rule["ID"], "ExpirationInDays": rule["Expiration"]["Days"]}
                for rule in lifecycle
            ]
        },
    }


def bucket_policy(aws: EmulatedAws, name: str) -> dict[str, Any]:
    policy = aws.client("s3").get_bucket_policy(Bucket=name)["Policy"]
    return {"Bucket": name, "PolicyDocument": json.loads(policy)}


def table(aws: EmulatedAws, name: str) -> dict[str, Any]:
    dynamodb = aws.client("dynamodb")
    found = dynamodb.describe_table(TableName=name)["Table"]
    time_to_live = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
    return {
        **found,
        "BillingMode": found["BillingModeSummary"]["BillingMode"],
        "TimeToLiveSpecification": {
            "AttributeName": time_to_live["AttributeName"],
            "Enabled": time_to_live["TimeToLiveStatus"] == "ENABLED",
        },
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": recovery == "ENABLED"},
    }


def queue(aws: EmulatedAws, url: str) -> dict[str, Any]:
    answer = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    attributes = answer["Attributes"]
    name = attributes["QueueArn"].split(":")[-1]
    return {**attributes, "QueueName": name, "Arn": attributes["QueueArn"]}


def queue_policy(aws: EmulatedAws, url: str) -> dict[str, Any]:
    return {"Queues": [url], "PolicyDocument": json.loads(queue(aws, url)["Policy"])}


def topic(aws: EmulatedAws, arn: str) -> dict[str, Any]:
    attributes = aws.client("sns").get_topic_attributes(TopicArn=arn)["Attributes"]
    return {"TopicName": attributes["TopicArn"].split(":")[-1]}


def subscription(aws: EmulatedAws, arn: str) -> dict[str, Any]:
    attributes: dict[str, Any] = aws.client("sns").get_subscription_attributes(SubscriptionArn=arn)[
        "Attributes"
    ]
    return attributes


def alarm(aws: EmulatedAws, name: str) -> dict[str, Any]:
    [found] = aws.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(found)


def dashboard(aws: EmulatedAws, name: str) -> dict[str, Any]:
    return dict(aws.client("cloudwatch").get_dashboard(DashboardName=name))


READINGS: dict[str, Reading] = {
    "AWS::ECS::Cluster": cluster,
    "AWS::ECS::TaskDefinition": task_definition,
    "AWS::ECS::Service": service,
    "AWS::IAM::Role": role,
    "AWS::Logs::LogGroup": log_group,
    "AWS::EC2::SecurityGroup": security_group,
    "AWS::S3::Bucket": bucket,
    "AWS::S3::BucketPolicy": bucket_policy,
    "AWS::DynamoDB::Table": table,
    "AWS::SQS::Queue": queue,
    "AWS::SQS::QueuePolicy": queue_policy,
    "AWS::SNS::Topic": topic,
    "AWS::SNS::Subscription": subscription,
    "AWS::CloudWatch::Alarm": alarm,
    "AWS::CloudWatch::Dashboard": dashboard,
}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every single value below, with its path, numbers and truth as text."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from leaves(inner, f"{path}.{name}" if path else name)
        case list():
            yield f"{path}[]", str(len(value))
            for index, inner in enumerate(value):
                yield from leaves(inner, f"{path}[{index}]")
        case bool():
            yield path, str(value).lower()
        case int() | float():
            yield path, f"{float(value):g}"
        case str() if value.replace(".", "", 1).isdigit():
            yield path, f"{float(value):g}"
        case _:
            yield path, unquote(str(value))
