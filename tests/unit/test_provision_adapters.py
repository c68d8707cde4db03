"""What AWS says that moto does not, and the corners of the network."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber
from moto import mock_aws

from chalicelib.adapters.dead_letters import AwsDeliveries
from chalicelib.adapters.network import Ec2Networks
from chalicelib.adapters.parameters import SsmParameters
from chalicelib.adapters.service_linked_role import EcsServiceLinkedRole
from chalicelib.adapters.stack import CloudFormationStacks
from chalicelib.core.provision.dead_letters import InvokeConfig, PutInvokeConfig, PutTargets
from chalicelib.core.provision.plan import Credential, Network, stack_definition
from chalicelib.core.provision.stack import TEMPLATE_TAG
from chalicelib.errors import NetworkError, OvertakenError
from tests.provisioning import FUNCTION_PREFIX, PARAMETER, QUEUE_ARN, STACK_ID, make_desired

SESSION = boto3.session.Session()
DEFINITION = stack_definition(make_desired(), Network("vpc-1", ("subnet-1",)))


def make_client(name: str) -> Any:
    return SESSION.client(  # type: ignore[call-overload]  # any service name
        name, "us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


PUT_TARGETS = PutTargets("rule", ({"Id": "1", "Arn": QUEUE_ARN},))
PUT_CONFIG = PutInvokeConfig("prefect-spot-dev-react", InvokeConfig(QUEUE_ARN))
CREDENTIAL = Credential(PARAMETER, "PREFECT_API_KEY_PARAMETER", is_api_key=True)

CALLS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "create_stack": ("cloudformation", lambda c: CloudFormationStacks(c).create(DEFINITION)),
    "update_stack": (
        "cloudformation",
        lambda c: CloudFormationStacks(c).update(STACK_ID, DEFINITION),
    ),
    "describe_stacks": ("cloudformation", lambda c: CloudFormationStacks(c).read("prefect-spot")),
    "create_service_linked_role": ("iam", lambda c: EcsServiceLinkedRole(c).create()),
    "get_parameter": ("ssm", lambda c: SsmParameters(c).arn_of(CREDENTIAL)),
    "put_targets": (
        "events",
        lambda c: AwsDeliveries(c, c, FUNCTION_PREFIX).put_targets(PUT_TARGETS),
    ),
    "put_function_event_invoke_config": (
        "lambda",
        lambda c: AwsDeliveries(c, c, FUNCTION_PREFIX).put_invoke_config(PUT_CONFIG),
    ),
}
"""What the adapters ask of AWS, by the operation that is refused, with the service's name."""

OVERTAKEN = (
    ("create_stack", "AlreadyExistsException", "Stack [prefect-spot-dev] already exists"),
    ("update_stack", "ValidationError", "No updates are to be performed."),
    (
        *("update_stack", "ValidationError"),
        f"Stack:{STACK_ID} is in UPDATE_IN_PROGRESS state and can not be updated.",
    ),
    ("update_stack", "ValidationError", f"Stack [{STACK_ID}] does not exist"),
    ("put_targets", "ResourceNotFoundException", "no rule"),
    ("put_targets", "ConcurrentModificationException", "a deploy is at it"),
    ("put_function_event_invoke_config", "ResourceNotFoundException", "no function"),
    ("put_function_event_invoke_config", "ResourceConflictException", "a deploy is at it"),
)
REFUSED = (
    ("create_stack", "InsufficientCapabilitiesException", "Requires capabilities"),
    ("update_stack", "ValidationError", "Template format error"),
    ("update_stack", "AccessDenied", "not authorized to perform cloudformation:UpdateStack"),
    ("describe_stacks", "AccessDenied", "not authorized"),
    ("describe_stacks", "Throttling", "Rate exceeded"),
    ("create_service_linked_role", "AccessDenied", "not authorized"),
    ("get_parameter", "AccessDeniedException", "not authorized"),
    (
        *("put_function_event_invoke_config", "InvalidParameterValueException"),
        "The function's execution role doesn't have permissions to call SendMessage",
    ),
)
AS_GOOD = (
    (
        *("create_service_linked_role", "InvalidInput"),
        "Service role name AWSServiceRoleForECS has been taken in this account",
    ),
    *[("create_service_linked_role", "EntityAlreadyExists", "Role already exists")],
)


@pytest.mark.parametrize(
    ("refusal", "raised"),
    [
        *[pytest.param(refusal, OvertakenError, id=refusal[2]) for refusal in OVERTAKEN],
        *[pytest.param(refusal, ClientError, id=refusal[2]) for refusal in REFUSED],
        *[pytest.param(refusal, None, id=refusal[2]) for refusal in AS_GOOD],
    ],
)
def test_a_refusal_says_that_another_was_quicker_or_is_raised_or_is_as_good(
    refusal: tuple[str, str, str], raised: type[Exception] | None
) -> None:
    operation, code, message = refusal
    service, call = CALLS[operation]
    client = make_client(service)
    with Stubber(client) as stubber:
        stubber.add_client_error(operation, service_error_code=code, service_message=message)
        with pytest.raises(raised) if raised else nullcontext():
            call(client)
        stubber.assert_no_pending_responses()


def test_a_stack_is_changed_by_its_id_so_that_no_successor_of_its_name_is_meant() -> None:
    client = make_client("cloudformation")
    with Stubber(client) as stubber:
        told = {
            "StackName": STACK_ID,
            "TemplateBody": DEFINITION.template_body,
            "Parameters": ANY,
            "Tags": [{"Key": TEMPLATE_TAG, "Value": DEFINITION.template_hash}],
            "Capabilities": ["CAPABILITY_NAMED_IAM"],
        }
        stubber.add_response("update_stack", {"StackId": STACK_ID}, told)
        stubber.add_response("delete_stack", {}, {"StackName": STACK_ID})
        stacks = CloudFormationStacks(client)
        stacks.update(STACK_ID, DEFINITION)
        stacks.delete(STACK_ID)
        stubber.assert_no_pending_responses()


def test_a_stack_that_is_being_created_has_no_outputs_yet() -> None:
    client = make_client("cloudformation")
    with Stubber(client) as stubber:
        described = {
            "StackId": STACK_ID,
            "StackName": "prefect-spot-dev",
            "StackStatus": "CREATE_IN_PROGRESS",
            "CreationTime": "2026-11-23",
        }
        stubber.add_response("describe_stacks", {"Stacks": [described]})
        stack = CloudFormationStacks(client).read("prefect-spot-dev")
    assert stack is not None
    assert (stack.outputs, stack.parameters, stack.is_ours) == ({}, {}, False)


def test_the_credentials_parameter_is_looked_at_and_not_decrypted() -> None:
    client = make_client("ssm")
    with Stubber(client) as stubber:
        found = {"Type": "SecureString", "ARN": "arn", "Value": "cipher"}
        asked = {"Name": PARAMETER, "WithDecryption": False}
        stubber.add_response("get_parameter", {"Parameter": found}, asked)
        assert SsmParameters(client).arn_of(CREDENTIAL) == "arn"


def test_targets_that_were_not_taken_are_not_taken_for_done() -> None:
    client = make_client("events")
    with Stubber(client) as stubber:
        failed = {"TargetId": "1", "ErrorCode": "InternalException", "ErrorMessage": "later"}
        stubber.add_response("put_targets", {"FailedEntryCount": 1, "FailedEntries": [failed]})
        with pytest.raises(OvertakenError, match="later"):
            AwsDeliveries(client, client, FUNCTION_PREFIX).put_targets(PUT_TARGETS)


# The network.


@pytest.fixture
def ec2() -> Iterator[Any]:
    with mock_aws():
        yield make_client("ec2")


def make_vpc(ec2: Any, *public: bool) -> tuple[str, list[str]]:
    """A VPC of one's own with a subnet for each, public or not."""
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = []
    for number, is_public in enumerate(public):
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]
        subnets.append(made["SubnetId"])
        ec2.modify_subnet_attribute(
            SubnetId=made["SubnetId"], MapPublicIpOnLaunch={"Value": is_public}
        )
    return vpc, subnets


def test_row_default_vpcs_subnets_are_found_and_sorted(ec2: Any) -> None:
    network = Ec2Networks(ec2).find("", (), assign_public_ip=True)
    [vpc] = [v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if v["IsDefault"]]
    subnets = sorted(s["SubnetId"] for s in ec2.describe_subnets()["Subnets"])
    assert network == Network(vpc, tuple(subnets))


def test_subnets_are_looked_up_to_the_last_page() -> None:
    client = make_client("ec2")
    with Stubber(client) as stubber:
        first = {"Subnets": [{"SubnetId": "subnet-1"}], "NextToken": "more"}
        stubber.add_response("describe_subnets", first)
        stubber.add_response("describe_subnets", {"Subnets": [{"SubnetId": "subnet-2"}]})
        network = Ec2Networks(client).find("vpc-1", (), assign_public_ip=True)
    assert network == Network("vpc-1", ("subnet-1", "subnet-2"))


def test_of_a_vpc_with_both_kinds_those_are_taken_that_fit(ec2: Any) -> None:
    vpc, (public, private) = make_vpc(ec2, True, False)
    find = Ec2Networks(ec2).find
    assert find(vpc, (), assign_public_ip=True) == Network(vpc, (public,))
    assert find(vpc, (), assign_public_ip=False) == Network(vpc, (private,))


def test_of_a_vpc_with_one_kind_all_are_taken(ec2: Any) -> None:
    vpc, subnets = make_vpc(ec2, False, False)
    network = Ec2Networks(ec2).find(vpc, (), assign_public_ip=True)
    assert network.subnet_ids == tuple(sorted(subnets))


def test_the_vpc_of_named_subnets_need_not_be_named(ec2: Any) -> None:
    vpc, subnets = make_vpc(ec2, True, True)
    for named in ("", vpc):
        assert Ec2Networks(ec2).find(named, subnets[:1], assign_public_ip=True) == Network(
            vpc, (subnets[0],)
        )


def test_subnets_that_do_not_fit_are_refused(ec2: Any) -> None:
    vpc, [subnet] = make_vpc(ec2, True)
    other, [stranger] = make_vpc(ec2, True)
    find = Ec2Networks(ec2).find
    for named, subnets, words in (
        ("", (subnet, stranger), f"{other}"),
        (other, (subnet,), f"subnets of one VPC, {other}"),
        ("", ("subnet-0123456789abcdef0",), "SUBNET_IDS"),
        (vpc.replace("vpc-", "vpc-0"), (), "VPC_ID"),
    ):
        with pytest.raises(NetworkError, match=words):
            find(named, subnets, assign_public_ip=True)


def test_a_vpc_without_subnets_is_refused(ec2: Any) -> None:
    vpc, _ = make_vpc(ec2)
    with pytest.raises(NetworkError, match="SUBNET_IDS"):
        Ec2Networks(ec2).find(vpc, (), assign_public_ip=True)
