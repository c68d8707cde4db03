"""What AWS says that moto does not, and the corners of the network."""

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber
from moto import mock_aws

from chalicelib.adapters.cloudformation import CloudFormationStacks
from chalicelib.adapters.delivery import AwsDeliveries
from chalicelib.adapters.network import Ec2Networks
from chalicelib.adapters.parameters import SsmParameters
from chalicelib.adapters.service_linked_role import EcsServiceLinkedRole
from chalicelib.core.delivery import InvokeConfig, PutInvokeConfig, PutTargets
from chalicelib.core.provisioning import Network, stack_definition
from chalicelib.core.stack import TEMPLATE_TAG
from chalicelib.errors import NetworkError, OvertakenError
from tests.provisioning import FUNCTION_PREFIX, QUEUE_ARN, STACK_ID, make_desired

SESSION = boto3.session.Session()
DEFINITION = stack_definition(make_desired(), Network("vpc-1", ("subnet-1",)))


def make_client(name: str) -> Any:
    return SESSION.client(  # type: ignore[call-overload]  # any service name
        name, "us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


def refusing(name: str, method: str, code: str, message: str = "") -> Any:
    """A client whose next call is refused as AWS refuses it."""
    client = make_client(name)
    stubber = Stubber(client)
    stubber.add_client_error(method, service_error_code=code, service_message=message)
    stubber.activate()
    return client


@pytest.mark.parametrize(
    ("method", "code", "message"),
    [
        ("create", "AlreadyExistsException", "Stack [prefect-spot-dev] already exists"),
        ("update", "ValidationError", "No updates are to be performed."),
        (
            "update",
            "ValidationError",
            f"Stack:{STACK_ID} is in UPDATE_IN_PROGRESS state and can not be updated.",
        ),
        ("update", "ValidationError", f"Stack [{STACK_ID}] does not exist"),
    ],
)
def test_whoever_is_late_at_the_stack_has_been_overtaken(
    method: str, code: str, message: str
) -> None:
    stacks = CloudFormationStacks(refusing("cloudformation", f"{method}_stack", code, message))
    with pytest.raises(OvertakenError, match=r"."):
        stacks.create(DEFINITION) if method == "create" else stacks.update(STACK_ID, DEFINITION)


@pytest.mark.parametrize(
    ("method", "code", "message"),
    [
        ("create", "InsufficientCapabilitiesException", "Requires capabilities"),
        ("update", "ValidationError", "Template format error"),
        ("update", "AccessDenied", "not authorized to perform cloudformation:UpdateStack"),
        ("describe", "AccessDenied", "not authorized"),
        ("describe", "Throttling", "Rate exceeded"),
    ],
)
def test_any_other_refusal_is_raised(method: str, code: str, message: str) -> None:
    name = "describe_stacks" if method == "describe" else f"{method}_stack"
    stacks = CloudFormationStacks(refusing("cloudformation", name, code, message))
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: stacks.create(DEFINITION),
        "update": lambda: stacks.update(STACK_ID, DEFINITION),
        "describe": lambda: stacks.read("prefect-spot-dev"),
    }
    with pytest.raises(ClientError, match=message):
        calls[method]()


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


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("InvalidInput", "Service role name AWSServiceRoleForECS has been taken in this account"),
        ("EntityAlreadyExists", "Role AWSServiceRoleForECS already exists"),
    ],
)
def test_a_service_linked_role_that_is_there_is_as_good(code: str, message: str) -> None:
    client = make_client("iam")
    with Stubber(client) as stubber:
        stubber.add_client_error("create_service_linked_role", code, message)
        EcsServiceLinkedRole(client).create()
        stubber.assert_no_pending_responses()  # it was refused, and that was no error


def test_a_service_linked_role_that_may_not_be_made_is_an_error() -> None:
    client = refusing("iam", "create_service_linked_role", "AccessDenied", "not authorized")
    with pytest.raises(ClientError, match="not authorized"):
        EcsServiceLinkedRole(client).create()


def test_the_credentials_parameter_is_looked_at_and_not_decrypted() -> None:
    client = make_client("ssm")
    credential = make_desired().credential
    assert credential is not None
    with Stubber(client) as stubber:
        found = {"Type": "SecureString", "ARN": "arn", "Value": "cipher"}
        asked = {"Name": credential.parameter, "WithDecryption": False}
        stubber.add_response("get_parameter", {"Parameter": found}, asked)
        assert SsmParameters(client).arn_of(credential) == "arn"


def test_a_parameter_that_may_not_be_read_is_an_error() -> None:
    credential = make_desired().credential
    assert credential is not None
    client = refusing("ssm", "get_parameter", "AccessDeniedException", "not authorized")
    with pytest.raises(ClientError, match="not authorized"):
        SsmParameters(client).arn_of(credential)


PUT_TARGETS = PutTargets("rule", ({"Id": "1", "Arn": QUEUE_ARN},))
PUT_CONFIG = PutInvokeConfig("prefect-spot-dev-react", InvokeConfig(QUEUE_ARN))


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "ConcurrentModificationException"])
def test_a_deploy_that_is_at_the_rule_has_overtaken_us(code: str) -> None:
    deliveries = AwsDeliveries(refusing("events", "put_targets", code), None, FUNCTION_PREFIX)  # type: ignore[arg-type]  # not asked
    with pytest.raises(OvertakenError):
        deliveries.put_targets(PUT_TARGETS)


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "ResourceConflictException"])
def test_a_deploy_that_is_at_the_function_has_overtaken_us(code: str) -> None:
    client = refusing("lambda", "put_function_event_invoke_config", code)
    with pytest.raises(OvertakenError):
        AwsDeliveries(None, client, FUNCTION_PREFIX).put_invoke_config(PUT_CONFIG)  # type: ignore[arg-type]  # not asked


def test_a_destination_that_the_function_may_not_write_to_is_an_error() -> None:
    client = refusing(
        *("lambda", "put_function_event_invoke_config", "InvalidParameterValueException"),
        "The function's execution role doesn't have permissions to call SendMessage",
    )
    with pytest.raises(ClientError, match="SendMessage"):
        AwsDeliveries(None, client, FUNCTION_PREFIX).put_invoke_config(PUT_CONFIG)  # type: ignore[arg-type]  # not asked


def test_targets_that_were_not_taken_are_not_taken_for_done() -> None:
    client = make_client("events")
    with Stubber(client) as stubber:
        failed = {"TargetId": "1", "ErrorCode": "InternalException", "ErrorMessage": "later"}
        stubber.add_response("put_targets", {"FailedEntryCount": 1, "FailedEntries": [failed]})
        with pytest.raises(OvertakenError, match="later"):
            AwsDeliveries(client, None, FUNCTION_PREFIX).put_targets(PUT_TARGETS)  # type: ignore[arg-type]  # not asked


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
