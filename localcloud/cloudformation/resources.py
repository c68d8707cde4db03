"""What CloudFormation does for each type of resource: calls of the service's own API.

moto's CloudFormation drops many properties in silence: the cluster's providers and strategy, the
task definition's network mode, size, roles and compatibilities, the service's launch type and
network, a role's managed policies, TTL and point-in-time recovery, the bucket's public-access block
and lifecycle; it ignores alarms and queue policies whole, and never deletes clusters, services and
task definitions. So it is not used: here every property goes into an API request, as AWS does it,
and one that no request takes makes the creation fail.
"""

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

SERVICE_DRAINS_SECONDS = 60

Client = Callable[[str], Any]
Properties = dict[str, Any]
Identity = tuple[str, Mapping[str, str]]
"""A resource's physical id, and the attributes that the template asks for."""


class ResourceError(Exception):
    """AWS's reason why a resource cannot be made, changed or deleted."""


@dataclass(frozen=True)
class Made:
    """A resource as it was made, with the names by which moto's reader of templates asks for it."""

    type: str
    properties: Properties
    physical_resource_id: str
    """What Ref says."""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def get_cfn_attribute(self, name: str) -> str:
        """What Fn::GetAtt says. Raises ResourceError for an attribute that is not emulated."""
        if name not in self.attributes:
            raise ResourceError(f"{self.type} has no attribute {name}")
        return self.attributes[name]


@dataclass(frozen=True)
class Kind:
    """How resources of a type are made, changed and deleted.

    A change of one of the `fixed` properties is a replacement. Without `change`, making it again
    changes what has the same name and replaces what has another; where AWS refuses that (a table),
    a changed resource fails its stack.
    """

    make: Callable[[Client, Properties], Identity]
    delete: Callable[[Client, Made], object]
    change: Callable[[Client, Made, Properties], object] | None = None
    fixed: tuple[str, ...] = ()

    def can_change(self, old: Properties, new: Properties) -> bool:
        """Whether the resource need not be replaced."""
        return self.change is not None and all(old.get(n) == new.get(n) for n in self.fixed)


def _call(client: Client, service: str, operation: str, properties: Mapping[str, Any]) -> Any:
    """Call an operation with properties as it takes them: its spelling, and numbers as numbers.

    Raises ResourceError for a property that the operation does not know.
    """
    api = client(service)
    api_name = api.meta.method_to_api_mapping[operation]
    shape = api.meta.service_model.operation_model(api_name).input_shape
    return getattr(api, operation)(**_converted(shape, properties, operation))


def _converted(shape: Any, value: Any, where: str) -> Any:
    match shape.type_name:
        case "structure":
            members = {name[:1].lower() + name[1:]: name for name in shape.members}
            result = {}
            for name, inner in value.items():
                member = members.get(name[:1].lower() + name[1:])
                if member is None:
                    raise ResourceError(f"Encountered unsupported property {name} in {where}")
                result[member] = _converted(shape.members[member], inner, f"{where}.{name}")
            return result
        case "list":
            return [_converted(shape.member, inner, where) for inner in value]
        case "map":
            return {name: _converted(shape.value, inner, where) for name, inner in value.items()}
        case "integer" | "long":
            return int(value)
        case "double" | "float":
            return float(value)
        case "boolean":
            return value if isinstance(value, bool) else value == "true"
        case _:
            return str(value)


def _without(properties: Properties, *names: str) -> Properties:
    return {name: value for name, value in properties.items() if name not in names}


# --- ECS


def _make_cluster(client: Client, properties: Properties) -> Identity:
    try:  # AWS makes this role when asked to, or when ECS's console is used for the first time
        client("iam").get_role(RoleName="AWSServiceRoleForECS")
    except ClientError:
        raise ResourceError(
            "Unable to assume the service linked role. Please verify that the ECS service linked"
            " role exists."
        ) from None
    made = _call(client, "ecs", "create_cluster", properties)["cluster"]
    return made["clusterName"], {"Arn": made["clusterArn"]}


def _change_cluster(client: Client, made: Made, properties: Properties) -> None:
    wanted = {"Cluster": made.physical_resource_id, **_without(properties, "ClusterName")}
    _call(client, "ecs", "put_cluster_capacity_providers", wanted)


def _make_task_definition(client: Client, properties: Properties) -> Identity:
    answer = _call(client, "ecs", "register_task_definition", properties)
    return str(answer["taskDefinition"]["taskDefinitionArn"]), {}


def _make_service(client: Client, properties: Properties) -> Identity:
    made = _call(client, "ecs", "create_service", properties)["service"]
    return made["serviceArn"], {"Name": made["serviceName"]}


def _change_service(client: Client, made: Made, properties: Properties) -> None:
    wanted = _without(properties, "ServiceName", "LaunchType")
    _call(client, "ecs", "update_service", {**wanted, "Service": made.attributes["Name"]})


def _delete_service(client: Client, made: Made) -> None:
    ecs, cluster, name = client("ecs"), made.properties["Cluster"], made.attributes["Name"]
    ecs.delete_service(cluster=cluster, service=name, force=True)
    deadline = time.monotonic() + SERVICE_DRAINS_SECONDS

    def is_drained() -> bool:
        arns = ecs.list_tasks(cluster=cluster)["taskArns"]
        tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
        own = [task for task in tasks if task["group"] == f"service:{name}"]
        return all(task["lastStatus"] == "STOPPED" for task in own)

    while not is_drained():
        if time.monotonic() > deadline:
            raise ResourceError("Resource of type 'AWS::ECS::Service' did not stabilize.")
        time.sleep(0.1)


# --- IAM, logs, network


def _make_role(client: Client, properties: Properties) -> Identity:
    plain = _without(properties, "ManagedPolicyArns", "Policies")
    plain["AssumeRolePolicyDocument"] = json.dumps(properties["AssumeRolePolicyDocument"])
    role = _call(client, "iam", "create_role", plain)["Role"]
    _grant(client, role["RoleName"], properties)
    return role["RoleName"], {"Arn": role["Arn"]}


def _grant(client: Client, role: str, properties: Properties) -> None:
    for arn in properties.get("ManagedPolicyArns", []):
        client("iam").attach_role_policy(RoleName=role, PolicyArn=arn)
    for policy in properties.get("Policies", []):
        client("iam").put_role_policy(
            RoleName=role,
            PolicyName=policy["PolicyName"],
            PolicyDocument=json.dumps(policy["PolicyDocument"]),
        )


def _revoke(client: Client, made: Made) -> None:
    for arn in made.properties.get("ManagedPolicyArns", []):
        client("iam").detach_role_policy(RoleName=made.physical_resource_id, PolicyArn=arn)
    for policy in made.properties.get("Policies", []):
        client("iam").delete_role_policy(
            RoleName=made.physical_resource_id, PolicyName=policy["PolicyName"]
        )


def _change_role(client: Client, made: Made, properties: Properties) -> None:
    iam, role = client("iam"), made.physical_resource_id
    trust = json.dumps(properties["AssumeRolePolicyDocument"])
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=trust)
    iam.update_role(RoleName=role, Description=properties.get("Description", ""))
    if boundary := properties.get("PermissionsBoundary"):
        iam.put_role_permissions_boundary(RoleName=role, PermissionsBoundary=boundary)
    _revoke(client, made)
    _grant(client, role, properties)


def _delete_role(client: Client, made: Made) -> None:
    _revoke(client, made)
    client("iam").delete_role(
        RoleName=made.physical_resource_id
    )  # fails when others granted it more


def _make_log_group(client: Client, properties: Properties) -> Identity:
    client("logs").create_log_group(logGroupName=properties["LogGroupName"])
    _call(client, "logs", "put_retention_policy", properties)
    return properties["LogGroupName"], {}


def _make_security_group(client: Client, properties: Properties) -> Identity:
    """A new group lets everything out, which is the one egress rule that is emulated."""
    rules = properties.get("SecurityGroupEgress", [])
    if any((rule["IpProtocol"], rule["CidrIp"]) != ("-1", "0.0.0.0/0") for rule in rules):
        raise ResourceError(f"egress other than all: not emulated ({rules})")
    plain = {
        **_without(properties, "SecurityGroupEgress", "GroupDescription"),
        "Description": properties["GroupDescription"],
        "GroupName": properties.get("GroupName", f"stack-{uuid.uuid4()}"),
    }
    group_id = _call(client, "ec2", "create_security_group", plain)["GroupId"]
    return group_id, {"GroupId": group_id}


# --- stores and queues


def _put_bucket(client: Client, properties: Properties) -> Identity:
    """CloudFormation spells encryption and lifecycle differently from S3 itself."""
    name = properties["BucketName"]
    client("s3").create_bucket(Bucket=name)
    for key, value in _without(properties, "BucketName").items():
        match key:
            case "BucketEncryption":
                rules = [
                    {"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]}
                    for rule in value["ServerSideEncryptionConfiguration"]
                ]
                operation = "put_bucket_encryption"
                argument: Properties = {"ServerSideEncryptionConfiguration": {"Rules": rules}}
            case "PublicAccessBlockConfiguration":
                operation, argument = "put_public_access_block", {key: value}
            case "OwnershipControls":
                operation, argument = "put_bucket_ownership_controls", {key: value}
            case "LifecycleConfiguration":
                operation = "put_bucket_lifecycle_configuration"
                argument = {key: {"Rules": [_lifecycle(rule) for rule in value["Rules"]]}}
            case _:
                raise ResourceError(f"Encountered unsupported property {key} in a bucket")
        _call(client, "s3", operation, {"Bucket": name, **argument})
    return name, {"Arn": f"arn:aws:s3:::{name}"}


def _lifecycle(rule: Properties) -> Properties:
    return {
        **_without(rule, "Id", "ExpirationInDays"),
        "ID": rule["Id"],
        "Filter": {"Prefix": ""},
        "Expiration": {"Days": rule["ExpirationInDays"]},
    }


def _put_bucket_policy(client: Client, properties: Properties) -> Identity:
    bucket = properties["Bucket"]
    client("s3").put_bucket_policy(Bucket=bucket, Policy=json.dumps(properties["PolicyDocument"]))
    return bucket, {}


def _make_table(client: Client, properties: Properties) -> Identity:
    dynamodb = client("dynamodb")
    plain = _without(properties, "TimeToLiveSpecification", "PointInTimeRecoverySpecification")
    table = _call(client, "dynamodb", "create_table", plain)["TableDescription"]
    name = table["TableName"]
    if backups := properties.get("PointInTimeRecoverySpecification"):
        dynamodb.update_continuous_backups(TableName=name, PointInTimeRecoverySpecification=backups)
    if time_to_live := properties.get("TimeToLiveSpecification"):
        dynamodb.update_time_to_live(TableName=name, TimeToLiveSpecification=time_to_live)
    return name, {"Arn": table["TableArn"]}


def _make_queue(client: Client, properties: Properties) -> Identity:
    """SQS takes numbers as text, and truth in lower case."""
    name, plain = properties["QueueName"], _without(properties, "QueueName").items()
    attributes = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in plain}
    sqs = client("sqs")
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, {"Arn": answer["Attributes"]["QueueArn"], "QueueName": name}


def _put_queue_policy(client: Client, properties: Properties) -> Identity:
    _set_queue_policy(client, properties, json.dumps(properties["PolicyDocument"]))
    return properties["Queues"][0], {}


def _set_queue_policy(client: Client, properties: Properties, policy: str) -> None:
    for url in properties["Queues"]:
        client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})


# --- alarms


def _make_topic(client: Client, properties: Properties) -> Identity:
    return _call(client, "sns", "create_topic", {"Name": properties["TopicName"]})["TopicArn"], {}


def _make_subscription(client: Client, properties: Properties) -> Identity:
    wanted = {**properties, "ReturnSubscriptionArn": True}
    return _call(client, "sns", "subscribe", wanted)["SubscriptionArn"], {}


def _put_alarm(client: Client, properties: Properties) -> Identity:
    _call(client, "cloudwatch", "put_metric_alarm", properties)
    return properties["AlarmName"], {}


def _put_dashboard(client: Client, properties: Properties) -> Identity:
    _call(client, "cloudwatch", "put_dashboard", properties)
    return properties["DashboardName"], {}


def _deletes(service: str, operation: str, argument: str) -> Callable[[Client, Made], object]:
    """Delete by an operation whose one argument is the physical id."""
    return lambda client, made: getattr(client(service), operation)(
        **{argument: made.physical_resource_id}
    )


KINDS: dict[str, Kind] = {
    "AWS::ECS::Cluster": Kind(
        _make_cluster,
        _deletes("ecs", "delete_cluster", "cluster"),
        _change_cluster,
        ("ClusterName",),
    ),
    "AWS::ECS::TaskDefinition": Kind(
        _make_task_definition, _deletes("ecs", "deregister_task_definition", "taskDefinition")
    ),
    "AWS::ECS::Service": Kind(
        _make_service, _delete_service, _change_service, ("ServiceName", "Cluster", "LaunchType")
    ),
    "AWS::IAM::Role": Kind(_make_role, _delete_role, _change_role, ("RoleName",)),
    "AWS::Logs::LogGroup": Kind(
        _make_log_group,
        _deletes("logs", "delete_log_group", "logGroupName"),
        lambda client, _, properties: _call(client, "logs", "put_retention_policy", properties),
        ("LogGroupName",),
    ),
    "AWS::EC2::SecurityGroup": Kind(
        _make_security_group, _deletes("ec2", "delete_security_group", "GroupId")
    ),
    # S3 refuses to delete a bucket while there is something in it.
    "AWS::S3::Bucket": Kind(_put_bucket, _deletes("s3", "delete_bucket", "Bucket")),
    "AWS::S3::BucketPolicy": Kind(
        _put_bucket_policy, _deletes("s3", "delete_bucket_policy", "Bucket")
    ),
    "AWS::DynamoDB::Table": Kind(_make_table, _deletes("dynamodb", "delete_table", "TableName")),
    "AWS::SQS::Queue": Kind(_make_queue, _deletes("sqs", "delete_queue", "QueueUrl")),
    "AWS::SQS::QueuePolicy": Kind(
        _put_queue_policy, lambda client, made: _set_queue_policy(client, made.properties, "")
    ),
    "AWS::SNS::Topic": Kind(_make_topic, _deletes("sns", "delete_topic", "TopicArn")),
    "AWS::SNS::Subscription": Kind(
        _make_subscription, _deletes("sns", "unsubscribe", "SubscriptionArn")
    ),
    "AWS::CloudWatch::Alarm": Kind(
        _put_alarm,
        lambda client, made: client("cloudwatch").delete_alarms(
            AlarmNames=[made.physical_resource_id]
        ),
    ),
    "AWS::CloudWatch::Dashboard": Kind(
        _put_dashboard,
        lambda client, made: client("cloudwatch").delete_dashboards(
            DashboardNames=[made.physical_resource_id]
        ),
    ),
}
"""Every type there is; another one makes the stack fail, as an unknown one does on AWS."""
