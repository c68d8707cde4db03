"""The VPC and the subnets that tasks run in, from EC2."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from chalicelib.core.provision.plan import Network
from chalicelib.errors import NetworkError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SubnetTypeDef


class Ec2Networks:
    """`core.provision.context.Networks` through boto3. Other errors of botocore's pass."""

    def __init__(self, client: "EC2Client") -> None:
        self._client = client

    def find(self, vpc_id: str, subnet_ids: Sequence[str], *, assign_public_ip: bool) -> Network:
        """Return VPC and subnets; empty ones are looked up: the default VPC, and its subnets.

        Of a VPC's subnets those are taken that give public addresses by themselves where tasks are
        to get one, and the others where not; all, where that leaves none.

        Raises:
            NetworkError: no default VPC, no subnets, or subnets that do not fit.
        """
        if subnet_ids:
            return self._named(vpc_id, subnet_ids)
        vpc_id = vpc_id or self._default_vpc()
        subnets = self._subnets_of(vpc_id)
        if not subnets:
            raise NetworkError(
                f"VPC {vpc_id} has no subnets, or does not exist",
                next_step="correct VPC_ID, or name subnets in SUBNET_IDS",
            )
        fitting = [s for s in subnets if s.get("MapPublicIpOnLaunch") is assign_public_ip]
        return Network(vpc_id, _ids(fitting or subnets))

    def _named(self, vpc_id: str, subnet_ids: Sequence[str]) -> Network:
        try:
            subnets = self._client.describe_subnets(SubnetIds=list(subnet_ids))["Subnets"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code.startswith(("InvalidSubnetID", "InvalidSubnetId")):
                raise NetworkError(
                    f"SUBNET_IDS is {','.join(subnet_ids)!r}: {error.response['Error']['Message']}",
                    next_step="name subnets of this account and region in SUBNET_IDS",
                ) from error
            raise
        vpcs = sorted({subnet.get("VpcId", "") for subnet in subnets})
        if len(vpcs) != 1 or vpc_id not in ("", vpcs[0]):
            raise NetworkError(
                f"SUBNET_IDS is {','.join(subnet_ids)!r}, in {', '.join(vpcs)}: accepted are"
                f" subnets of one VPC, {vpc_id or 'whichever it is'}",
                next_step="correct SUBNET_IDS, or VPC_ID",
            )
        return Network(vpcs[0], _ids(subnets))

    def _default_vpc(self) -> str:
        vpcs = self._client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])
        for vpc in vpcs["Vpcs"]:
            if "VpcId" in vpc:
                return vpc["VpcId"]
        raise NetworkError(
            "this account has no default VPC in this region",
            next_step="set VPC_ID and SUBNET_IDS, or create a default VPC"
            " (aws ec2 create-default-vpc)",
        )

    def _subnets_of(self, vpc_id: str) -> "list[SubnetTypeDef]":
        of_vpc: list[FilterTypeDef] = [{"Name": "vpc-id", "Values": [vpc_id]}]
        pages = self._client.get_paginator("describe_subnets").paginate(Filters=of_vpc)
        return [subnet for page in pages for subnet in page["Subnets"]]


def _ids(subnets: "Sequence[SubnetTypeDef]") -> tuple[str, ...]:
    """Sorted, so that EC2's order makes no difference to the stack."""
    return tuple(sorted(subnet["SubnetId"] for subnet in subnets if "SubnetId" in subnet))
