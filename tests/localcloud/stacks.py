"""A stack in an emulated account: created, updated, deleted, and looked at from the outside."""

import json
import uuid
from dataclasses import dataclass, field
from typing import Any

import infra
from localcloud.aws import Aws
from tests.localcloud.cloud import wait_until
from tests.unit import stack_template

API_KEY = "pnu_known_to_nobody_but_ssm"


@dataclass
class StackUnderTest:
    """A stack of its own name in the account; `vpc` and `subnets` are the default VPC's."""

    aws: Aws
    name: str = field(default_factory=lambda: f"prefect-spot-{uuid.uuid4().hex[:6]}")
    id: str = ""
    template: Any = field(default_factory=lambda: infra.load("stack.json"))

    def __post_init__(self) -> None:
        ec2 = self.aws.client("ec2")
        [vpc] = ec2.describe_vpcs(Filters=[{"Name": "isDefault", "Values": ["true"]}])["Vpcs"]
        of_vpc = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
        subnets = ec2.describe_subnets(Filters=of_vpc)["Subnets"]
        self.vpc = vpc["VpcId"]
        self.subnets = [subnet["SubnetId"] for subnet in subnets][:2]

    def full(self, **changes: str) -> dict[str, str]:
        """Return parameters as for a first deployment of the stage."""
        network = {"VpcId": self.vpc, "SubnetIds": ",".join(self.subnets)}
        stage = self.name.removeprefix("prefect-spot-")
        names = {"Stage": stage, "ClusterName": self.name, "TableName": self.name}
        return stack_template.parameters(**{**names, **network, **changes})

    def create(self, given: dict[str, str], **request: Any) -> str:
        """Create it and wait; return its status."""
        self.begin(given, **request)
        return self.settle()

    def begin(self, given: dict[str, str], **request: Any) -> None:
        """Begin to create it."""
        self.id = self.client.create_stack(**{**self._request(given), **request})["StackId"]

    def update(self, given: dict[str, str]) -> str:
        """Update it and wait; return its status."""
        self.client.update_stack(**self._request(given))
        return self.settle()

    def delete(self) -> str:
        """Delete it and wait; return its status."""
        self.client.delete_stack(StackName=self.name)
        return self.settle()

    def settle(self) -> str:
        """Wait until no operation is in progress; return its status."""
        wait_until(lambda: not self.status().endswith("_IN_PROGRESS"), 60)
        return self.status()

    def status(self) -> str:
        return str(self._described()["StackStatus"])

    @property
    def client(self) -> Any:
        return self.aws.client("cloudformation")

    def _request(self, given: dict[str, str]) -> dict[str, Any]:
        return {
            "StackName": self.name,
            "TemplateBody": json.dumps(self.template),
            "Parameters": [{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
            "Tags": [{"Key": "prefect-spot:stage", "Value": "dev"}],
        }

    def _described(self) -> dict[str, Any]:
        return dict(self.client.describe_stacks(StackName=self.id)["Stacks"][0])

    def outputs(self) -> dict[str, str]:
        return {o["OutputKey"]: o["OutputValue"] for o in self._described().get("Outputs", [])}

    def failures(self) -> list[tuple[str, str]]:
        events = self.client.describe_stack_events(StackName=self.id)["StackEvents"]
        return [
            (e["LogicalResourceId"], e.get("ResourceStatusReason", ""))
            for e in events
            if e["ResourceStatus"].endswith("_FAILED") and e["PhysicalResourceId"] != self.id
        ]

    def physical_ids(self) -> dict[str, str]:
        """Every resource's physical id, by its logical id."""
        found = self.client.describe_stack_resources(StackName=self.id)["StackResources"]
        return {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in found}


def empty_account(aws: Aws) -> None:
    """Make what is there before the stack: the API key, and ECS's service-linked role."""
    key = {"Name": "/prefect-spot/dev/api-key", "Value": API_KEY}
    aws.client("ssm").put_parameter(**key, Type="SecureString")
    aws.client("iam").create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
