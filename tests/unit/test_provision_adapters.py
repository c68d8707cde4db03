"""What AWS answers that moto does not, and which network is found."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber
from moto import mock_aws

from chalicelib.adapters.provisioning import AwsAccount
from chalicelib.core.provision.concurrency import Concurrency
from chalicelib.core.provision.model import (
    TEMPLATE_TAG,
    CreateServiceLinkedRole,
    CreateStack,
    DeleteStack,
    InvokeConfig,
    PutConcurrency,
    PutInvokeConfig,
    PutRetention,
    PutTargets,
    UpdateStack,
)
from chalicelib.core.provision.plan import Network, stack_definition
from chalicelib.errors import ConcurrencyError, ConcurrentUpdateError, NetworkError, ParameterError
from tests.provisioning import FUNCTION_PREFIX, PARAMETER, QUEUE_ARN, STACK_ID, make_desired

SESSION = boto3.session.Session()
DEFINITION = stack_definition(make_desired(), Network("vpc-1", ("subnet-1",)))
UPDATE = UpdateStack(STACK_ID, DEFINITION, "")
PUT_TARGETS = PutTargets("rule", ({"Id": "1", "Arn": QUEUE_ARN},))
PUT_CONCURRENCY = PutConcurrency("prefect-spot-dev-react", 10)
PUT_CONFIG = PutInvokeConfig("prefect-spot-dev-react", InvokeConfig(QUEUE_ARN))
CA, HEADERS = "PREFECT_CA_CERTIFICATE_PARAMETER", "PREFECT_CUSTOM_HEADERS_PARAMETER"
KEY = ("PREFECT_API_KEY_PARAMETER", PARAMETER)


def make_client(name: str) -> Any:
    return SESSION.client(  # type: ignore[call-overload]  # any service name
        name, "us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )


def account_of(client: Any) -> AwsAccount:
    """The account, as far as this one client sees it."""
    services = ("cloudformation", "ec2", "events", "iam", "lambdas", "logs", "ssm")
    clients = cast("dict[str, Any]", dict.fromkeys(services, client))
    return AwsAccount(**clients, function_arn_prefix=FUNCTION_PREFIX)


def stubbed(service: str) -> tuple[AwsAccount, Stubber]:
    client = make_client(service)
    stubber = Stubber(client)
    stubber.activate()
    return account_of(client), stubber


CALLS: dict[str, tuple[str, Callable[[AwsAccount], object]]] = {
    "create_stack": ("cloudformation", lambda aws: aws.perform(CreateStack(DEFINITION))),
    "update_stack": ("cloudformation", lambda aws: aws.perform(UPDATE)),
    "describe_stacks": ("cloudformation", lambda aws: aws.read_stack("prefect-spot")),
    "create_service_linked_role": ("iam", lambda aws: aws.perform(CreateServiceLinkedRole())),
    "get_parameter": ("ssm", lambda aws: aws.arn_of(*KEY)),
    "put_targets": ("events", lambda aws: aws.perform(PUT_TARGETS)),
    "put_retention_policy": ("logs", lambda aws: aws.perform(PutRetention("group", 30))),
    "put_function_event_invoke_config": (
        "lambda",
        lambda aws: aws.perform(PUT_CONFIG),
    ),
    "put_function_concurrency": ("lambda", lambda aws: aws.perform(PUT_CONCURRENCY)),
    "get_account_settings": ("lambda", lambda aws: aws.read_concurrency(["react"])),
}
"""What is asked of AWS, by the operation that is refused, with the service's name."""

CONCURRENT = (
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
    ("put_retention_policy", "ResourceNotFoundException", "no group"),
    ("put_retention_policy", "OperationAbortedException", "another call is at it"),
    ("put_function_event_invoke_config", "ResourceConflictException", "a deploy is at it"),
    ("put_function_concurrency", "ResourceNotFoundException", "no function to reserve for"),
    ("put_function_concurrency", "ResourceConflictException", "a deploy is still at it"),
)
UNRESERVED = (
    ("put_function_concurrency", "InvalidParameterValueException", "below its minimum of [10]"),
    ("put_function_concurrency", "AccessDeniedException", "not authorized to reserve"),
    ("put_function_concurrency", "TooManyRequestsException", "Rate exceeded at reserving"),
    ("get_account_settings", "AccessDeniedException", "not authorized to read the quota"),
    ("get_account_settings", "TooManyRequestsException", "Rate exceeded at reading"),
)
REFUSED = (
    ("create_stack", "InsufficientCapabilitiesException", "Requires capabilities"),
    ("update_stack", "ValidationError", "Template format error"),
    ("describe_stacks", "Throttling", "Rate exceeded"),
    ("create_service_linked_role", "AccessDenied", "not authorized for iam"),
    ("get_parameter", "AccessDeniedException", "not authorized for ssm"),
    ("put_function_event_invoke_config", "InvalidParameterValueException", "no right to send"),
)
DONE = (
    (
        *("create_service_linked_role", "InvalidInput"),
        "Service role name AWSServiceRoleForECS has been taken in this account",
    ),
    *[("create_service_linked_role", "EntityAlreadyExists", "Role already exists")],
)


@pytest.mark.parametrize(
    ("refusal", "raised"),
    [
        *[pytest.param(refusal, ConcurrentUpdateError, id=refusal[2]) for refusal in CONCURRENT],
        *[pytest.param(refusal, ConcurrencyError, id=refusal[2]) for refusal in UNRESERVED],
        *[pytest.param(refusal, ClientError, id=refusal[2]) for refusal in REFUSED],
        *[pytest.param(refusal, None, id=refusal[2]) for refusal in DONE],
    ],
)
def test_a_refusal_is_a_concurrent_update_or_an_error_or_says_that_it_is_done(
    refusal: tuple[str, str, str], raised: type[Exception] | None
) -> None:
    operation, code, message = refusal
    service, call = CALLS[operation]
    aws, stubber = stubbed(service)
    stubber.add_client_error(operation, service_error_code=code, service_message=message)
    with pytest.raises(raised) if raised else nullcontext():
        call(aws)
    stubber.assert_no_pending_responses()


def test_a_stack_is_created_with_a_time_limit_and_then_changed_by_its_id_alone() -> None:
    """No successor of its name is meant; an update takes no limit."""
    aws, stubber = stubbed("cloudformation")
    request = {
        "StackName": STACK_ID,
        "TemplateBody": DEFINITION.template_body,
        "Parameters": ANY,
        "Tags": [{"Key": TEMPLATE_TAG, "Value": DEFINITION.template_hash}],
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
    }
    creation = {**request, "StackName": "prefect-spot-dev", "TimeoutInMinutes": 20}
    stubber.add_response("create_stack", {"StackId": STACK_ID}, creation)
    stubber.add_response("update_stack", {"StackId": STACK_ID}, request)
    stubber.add_response("delete_stack", {}, {"StackName": STACK_ID})
    aws.perform(CreateStack(DEFINITION))
    aws.perform(UPDATE)
    aws.perform(DeleteStack(STACK_ID, "prefect-spot-dev", ""))
    stubber.assert_no_pending_responses()


def test_a_stack_that_is_being_created_has_no_outputs_yet() -> None:
    aws, stubber = stubbed("cloudformation")
    described = {
        "StackId": STACK_ID,
        "StackName": "prefect-spot-dev",
        "StackStatus": "CREATE_IN_PROGRESS",
        "CreationTime": "2026-11-23",
    }
    stubber.add_response("describe_stacks", {"Stacks": [described]})
    stack = aws.read_stack("prefect-spot-dev")
    assert stack is not None
    assert (stack.outputs, stack.parameters, stack.is_ours) == ({}, {}, False)


def test_the_accounts_concurrency_is_read_with_what_deployed_functions_have_reserved() -> None:
    aws, stubber = stubbed("lambda")
    limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 900}
    stubber.add_response("get_account_settings", {"AccountLimit": limit}, {})
    for function, reserved in (("none", {}), ("held", {"ReservedConcurrentExecutions": 0})):
        stubber.add_response("get_function_concurrency", reserved, {"FunctionName": function})
    stubber.add_client_error("get_function_concurrency", "ResourceNotFoundException")
    found = aws.read_concurrency(["none", "held", "not deployed"])
    assert found == Concurrency(1000, 900, {"none": None, "held": 0})


def test_the_credentials_parameter_is_read_and_not_decrypted() -> None:
    aws, stubber = stubbed("ssm")
    found = {"Type": "SecureString", "ARN": "arn", "Value": "cipher"}
    request = {"Name": PARAMETER, "WithDecryption": False}
    stubber.add_response("get_parameter", {"Parameter": found}, request)
    assert aws.arn_of(*KEY) == "arn"


@pytest.mark.parametrize(("setting", "may"), [(CA, True), (HEADERS, False)])
def test_only_certificates_may_be_in_plain(setting: str, may: bool) -> None:
    aws, stubber = stubbed("ssm")
    stubber.add_response("get_parameter", {"Parameter": {"Type": "String", "ARN": "arn"}})
    with nullcontext() if may else pytest.raises(ParameterError, match=setting):
        assert aws.arn_of(setting, "/a") == "arn"


def test_targets_that_were_not_written_are_not_reported_as_done() -> None:
    aws, stubber = stubbed("events")
    failed = {"TargetId": "1", "ErrorCode": "InternalException", "ErrorMessage": "later"}
    stubber.add_response("put_targets", {"FailedEntryCount": 1, "FailedEntries": [failed]})
    with pytest.raises(ConcurrentUpdateError, match="later"):
        aws.perform(PUT_TARGETS)


# The network.


def found(ec2: Any, vpc: str = "", *subnets: str, public: bool = True) -> Network:
    desired = make_desired(vpc_id=vpc, subnet_ids=subnets, assign_public_ip=public)
    return account_of(ec2).find_network(desired)


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


def test_default_vpcs_subnets_are_found_and_sorted(ec2: Any) -> None:
    [vpc] = [v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"] if v["IsDefault"]]
    subnets = sorted(s["SubnetId"] for s in ec2.describe_subnets()["Subnets"])
    assert found(ec2) == Network(vpc, tuple(subnets))


def test_subnets_are_looked_up_to_the_last_page() -> None:
    aws, stubber = stubbed("ec2")
    first = {"Subnets": [{"SubnetId": "subnet-1"}], "NextToken": "more"}
    stubber.add_response("describe_subnets", first)
    stubber.add_response("describe_subnets", {"Subnets": [{"SubnetId": "subnet-2"}]})
    network = aws.find_network(make_desired(vpc_id="vpc-1"))
    assert network == Network("vpc-1", ("subnet-1", "subnet-2"))


def test_of_a_vpcs_subnets_those_are_taken_that_fit_or_all(ec2: Any) -> None:
    vpc, (public, private) = make_vpc(ec2, True, False)
    assert found(ec2, vpc) == Network(vpc, (public,))
    assert found(ec2, vpc, public=False) == Network(vpc, (private,))
    vpc, subnets = make_vpc(ec2, False, False)
    assert found(ec2, vpc).subnet_ids == tuple(sorted(subnets))


def test_the_vpc_of_named_subnets_need_not_be_named(ec2: Any) -> None:
    vpc, (subnet, _) = make_vpc(ec2, True, True)
    assert found(ec2, "", subnet) == found(ec2, vpc, subnet) == Network(vpc, (subnet,))


def test_a_network_that_does_not_fit_is_refused(ec2: Any) -> None:
    vpc, [subnet] = make_vpc(ec2, True)
    other, [stranger] = make_vpc(ec2, True)
    empty, _ = make_vpc(ec2)
    for named, subnets, words in (
        ("", (subnet, stranger), f"{other}"),
        (other, (subnet,), f"subnets of one VPC, {other}"),
        ("", ("subnet-0123456789abcdef0",), "SUBNET_IDS"),
        (vpc.replace("vpc-", "vpc-0"), (), "VPC_ID"),
        (empty, (), "SUBNET_IDS"),
    ):
        with pytest.raises(NetworkError, match=words):
            found(ec2, named, *subnets)
