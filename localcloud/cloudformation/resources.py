"""What CloudFormation does for each type of resource: calls of the service's own API.

moto's CloudFormation drops many properties in silence: the cluster's providers and strategy, the
task definition's network mode, size, roles and compatibilities, the service's launch type and
network, a role's managed policies, TTL and point-in-time recovery, the bucket's public-access block
and lifecycle; it ignores alarms and queue policies whole, and never deletes clusters, services and
task definitions. So it is not used: here every property goes into an API request, as AWS does it,
and one that no request takes makes the creation fail.
"""

from __future__ import annotations

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


class ResourceError(Exception):
    """AWS's reason why a resource cannot be made, changed or deleted."""


@dataclass(frozen=True)
class Made:
    """A resource as it was made: what Ref says of it, and what Fn::GetAtt does."""

    type: str
    properties: Properties
    physical_id: str
    attributes: Mapping[str, str] = field(default_factory=dict)


Make = Callable[[Client, Properties], tuple[str, Mapping[str, str]]]
Change = Callable[[Client, Made, Properties], None]
Delete = Callable[[Client, Made], None]


@dataclass(frozen=True)
class Kind:
    """How resources of a type are made, changed and deleted.

    A change of one of the `fixed` properties is a replacement. Without `change`, making it again
    changes what has the same name and replaces what has another; where AWS refuses that (a table),
    a changed resource fails its stack.
    """

    make: Make
    delete: Delete
    change: Change | None = None
    fixed: tuple[str, ...] = ()

    def can_change(self, old: Properties, new: Properties) -> bool:
        """Whether the resource need not be replaced."""
        return self.change is not None and all(old.get(n) == new.get(n) for n in self.fixed)


def request(client: Any, operation: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return properties as the operation takes them: its spelling, and numbers as numbers.

    Raises ResourceError for a property that the operation does not know.
    """
    api_name = client.meta.method_to_api_mapping[operation]
    shape = client.meta.service_model.operation_model(api_name).input_shape
    written: dict[str, Any] = _written(shape, properties, operation)
    return written


def _written(shape: Any, value: Any, where: str) -> Any:
    match shape.type_name:
        case "structure":
            members = {name[:1].lower() + name[1:]: name for name in shape.members}
            result = {}
            for name, inner in value.items():
                member = members.get(name[:1].lower() + name[1:])
                if member is None:
                    raise ResourceError(f"Encountered unsupported property {name} in {where}")
                result[member] = _written(shape.members[member], inner, f"{where}.{name}")
            return result
        case "list":
            if not isinstance(value, list):
                raise ResourceError(f"Value of property {where} must be of type List")
            return [_written(shape.member, inner, where) for inner in value]
        case "map":
            return {name: _written(shape.value, inner, where) for name, inner in value.items()}
        case "integer" | "long":
            return int(value)
        case "double" | "float":
            return float(value)
        case "boolean":
            return value if isinstance(value, bool) else value == "true"
        case _:
            return str(value)


def without(properties: Properties, *names: str) -> Properties:
    """Return the properties but for these."""
    return {name: value for name, value in properties.items() if name not in names}


# --- ECS


def _make_cluster(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    _service_linked_role(client)
    ecs = client("ecs")
    made = ecs.create_cluster(**request(ecs, "create_cluster", properties))["cluster"]
    return made["clusterName"], {"Arn": made["clusterArn"]}


def _service_linked_role(client: Client) -> None:
    """AWS makes this role only when asked, or when somebody used ECS's console before."""
    try:
        client("iam").get_role(RoleName="AWSServiceRoleForECS")
    except ClientError:
        raise ResourceError(
            "Unable to assume the service linked role. Please verify that the ECS service linked"
            " role exists."
        ) from None


def _change_cluster(client: Client, made: Made, properties: Properties) -> None:
    ecs = client("ecs")
    wanted = {"Cluster": made.physical_id, **without(properties, "ClusterName")}
    ecs.put_cluster_capacity_providers(**request(ecs, "put_cluster_capacity_providers", wanted))


def _delete_cluster(client: Client, made: Made) -> None:
    if _live_tasks(client, made.physical_id):
        raise ResourceError("The Cluster cannot be deleted while Tasks are active.")
    client("ecs").delete_cluster(cluster=made.physical_id)


def _live_tasks(client: Client, cluster: str) -> list[dict[str, Any]]:
    ecs = client("ecs")
    arns = ecs.list_tasks(cluster=cluster)["taskArns"]
    tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    return [task for task in tasks if task["lastStatus"] != "STOPPED"]


def _make_task_definition(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    ecs = client("ecs")
    answer = ecs.register_task_definition(**request(ecs, "register_task_definition", properties))
    return str(answer["taskDefinition"]["taskDefinitionArn"]), {}


def _delete_task_definition(client: Client, made: Made) -> None:
    client("ecs").deregister_task_definition(taskDefinition=made.physical_id)


def _make_service(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    ecs = client("ecs")
    made = ecs.create_service(**request(ecs, "create_service", properties))["service"]
    return made["serviceArn"], {"Name": made["serviceName"]}


def _change_service(client: Client, made: Made, properties: Properties) -> None:
    ecs = client("ecs")
    wanted = without(properties, "ServiceName", "LaunchType")
    wanted["Service"] = made.attributes["Name"]
    ecs.update_service(**request(ecs, "update_service", wanted))


def _delete_service(client: Client, made: Made) -> None:
    cluster, name = made.properties["Cluster"], made.attributes["Name"]
    client("ecs").delete_service(cluster=cluster, service=name, force=True)
    deadline = time.monotonic() + SERVICE_DRAINS_SECONDS
    while any(task["group"] == f"service:{name}" for task in _live_tasks(client, cluster)):
        if time.monotonic() > deadline:
            raise ResourceError("Resource of type 'AWS::ECS::Service' did not stabilize.")
        time.sleep(0.1)


# --- IAM


def _make_role(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    iam = client("iam")
    plain = without(properties, "ManagedPolicyArns", "Policies")
    plain["AssumeRolePolicyDocument"] = json.dumps(properties["AssumeRolePolicyDocument"])
    role = iam.create_role(**request(iam, "create_role", plain))["Role"]
    _grant(client, role["RoleName"], properties)
    return role["RoleName"], {"Arn": role["Arn"], "RoleId": role["RoleId"]}


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
        client("iam").detach_role_policy(RoleName=made.physical_id, PolicyArn=arn)
    for policy in made.properties.get("Policies", []):
        client("iam").delete_role_policy(RoleName=made.physical_id, PolicyName=policy["PolicyName"])


def _change_role(client: Client, made: Made, properties: Properties) -> None:
    client("iam").update_assume_role_policy(
        RoleName=made.physical_id,
        PolicyDocument=json.dumps(properties["AssumeRolePolicyDocument"]),
    )
    client("iam").update_role(
        RoleName=made.physical_id, Description=properties.get("Description", "")
    )
    _revoke(client, made)
    _grant(client, made.physical_id, properties)


def _delete_role(client: Client, made: Made) -> None:
    _revoke(client, made)
    client("iam").delete_role(RoleName=made.physical_id)  # fails when others granted it more


# --- logs, network


def _make_log_group(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    name = properties["LogGroupName"]
    client("logs").create_log_group(logGroupName=name)
    _set_retention(client, name, properties)
    [group] = client("logs").describe_log_groups(logGroupNamePrefix=name, limit=1)["logGroups"]
    return name, {"Arn": group["arn"]}


def _set_retention(client: Client, name: str, properties: Properties) -> None:
    logs = client("logs")
    wanted = request(logs, "put_retention_policy", properties)
    logs.put_retention_policy(**{**wanted, "logGroupName": name})


def _change_log_group(client: Client, made: Made, properties: Properties) -> None:
    _set_retention(client, made.physical_id, properties)


def _delete_log_group(client: Client, made: Made) -> None:
    client("logs").delete_log_group(logGroupName=made.physical_id)


def _make_security_group(client: Client, properties: Properties) -> tuple[str, Mapping[str, str]]:
    ec2 = client("ec2")
    plain = without(properties, "SecurityGroupEgress", "GroupDescription")
    plain["Description"] = properties["GroupDescription"]
    plain.setdefault("GroupName", f"stack-{uuid.uuid4()}")
    group_id = ec2.create_security_group(**request(ec2, "create_security_group", plain))["GroupId"]
    if rules := properties.get("SecurityGroupEgress"):
        [group] = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
        ec2.revoke_security_group_egress(
            GroupId=group_id, IpPermissions=group["IpPermissionsEgress"]
        )
        for rule in rules:
            addresses = {"CidrIp": rule["CidrIp"], "Description": rule.get("Description", "")}
            permission = without(rule, "CidrIp", "Description")
            wanted = {"IpPermissions": [{**permission, "IpRanges": [addresses]}]}
            ec2.authorize_security_group_egress(
                **request(ec2, "authorize_security_group_egress", wanted), GroupId=group_id
            )
    return group_id, {"GroupId": group_id}


def _delete_security_group(client: Client, made: Made) -> None:
    client("ec2").delete_security_group(GroupId=made.physical_id)


ECS_AND_ITS_SURROUNDINGS: dict[str, Kind] = {
    "AWS::ECS::Cluster": Kind(_make_cluster, _delete_cluster, _change_cluster, ("ClusterName",)),
    "AWS::ECS::TaskDefinition": Kind(_make_task_definition, _delete_task_definition),
    "AWS::ECS::Service": Kind(
        _make_service,
        _delete_service,
        _change_service,
        ("ServiceName", "Cluster", "LaunchType"),
    ),
    "AWS::IAM::Role": Kind(_make_role, _delete_role, _change_role, ("RoleName",)),
    "AWS::Logs::LogGroup": Kind(
        _make_log_group, _delete_log_group, _change_log_group, ("LogGroupName",)
    ),
    "AWS::EC2::SecurityGroup": Kind(_make_security_group, _delete_security_group),
}
