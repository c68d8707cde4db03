"""No setting gives a resource a name, a length or a number of things that its service refuses.

What a service accepts is in botocore's model of it; where the model is silent, in its
documentation, which is named. Emulators let such names through.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import botocore.session
import pytest
from botocore.model import ListShape, Shape, StructureShape
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.errors import SettingError
from chalicelib.settings import function_names, read_settings
from tests.unit import stack_template as stack

CREATES: Final = {
    "AWS::CloudWatch::Alarm": "cloudwatch:PutMetricAlarm",
    "AWS::CloudWatch::Dashboard": "cloudwatch:PutDashboard",
    "AWS::DynamoDB::Table": "dynamodb:CreateTable",
    "AWS::EC2::SecurityGroup": "ec2:CreateSecurityGroup",
    "AWS::ECS::Cluster": "ecs:CreateCluster",
    "AWS::ECS::Service": "ecs:CreateService",
    "AWS::ECS::TaskDefinition": "ecs:RegisterTaskDefinition",
    "AWS::IAM::Role": "iam:CreateRole",
    "AWS::Logs::LogGroup": "logs:CreateLogGroup",
    "AWS::S3::Bucket": "s3:CreateBucket",
    "AWS::SNS::Subscription": "sns:Subscribe",
    "AWS::SNS::Topic": "sns:CreateTopic",
    "AWS::SQS::Queue": "sqs:CreateQueue",
}
IN_ECS: Final = r"[A-Za-z0-9_-]{1,255}"
DOCUMENTED: Final = {
    # S3 user guide, "General purpose bucket naming rules"
    "BucketName": r"(?!xn--|sthree-|amzn-s3-demo-)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
    "QueueName": r"[A-Za-z0-9_-]{1,80}",  # SQS API reference, CreateQueue
    "TopicName": r"[A-Za-z0-9_-]{1,256}",  # SNS API reference, CreateTopic
    "ClusterName": IN_ECS,  # ECS API reference, CreateCluster; and of the others
    "ServiceName": IN_ECS,
    "Family": IN_ECS,
    "Value": r"[\x00-\x7f]{0,1024}",  # CloudWatch API reference, Dimension: ASCII only
}
MOST: Final = {"Subnets": 16, "SecurityGroups": 5}
"""ECS API reference, AwsVpcConfiguration."""

OF_CHALICE: Final = {  # Lambda, EventBridge and IAM API references
    "{}": r"[A-Za-z0-9_-]{1,64}",
    "{}-event": r"[.\-_A-Za-z0-9]{1,64}",
}
"""Of a function and its role, and of a rule: prefect-spot-STAGE-provision-event is the longest."""

_SESSION: Final = botocore.session.get_session()


def refused(environment: Mapping[str, str]) -> Iterator[str]:
    """What a service would refuse of a stage with these settings; of refused settings nothing."""
    try:
        values = read_settings(
            {"PREFECT_API_URL": "http://p/api", "PREFECT_API_KEY_PARAMETER": "k", **environment}
        )
    except SettingError:
        return
    for made in stack.resources(stack.parameters_of(**environment)).values():
        if made["Type"] in CREATES:
            service, _, operation = CREATES[made["Type"]].partition(":")
            shape = _SESSION.get_service_model(service).operation_model(operation).input_shape
            yield from wrong(made["Properties"], shape)
    names = {
        form.format(n): p for n in function_names(values.stage) for form, p in OF_CHALICE.items()
    }
    names[f"prefect_{values.work_pools[0]}_{'0' * 36}"] = IN_ECS if values.is_full else ".*"
    yield from (name for name, form in names.items() if not re.fullmatch(form, name))


def wrong(value: Any, shape: Shape | None, name: str = "") -> Iterator[str]:
    """Walk a resource's properties beside the request that they go into."""
    if isinstance(value, dict):
        members = shape.members if isinstance(shape, StructureShape) else {}
        by_name = {key.lower(): member for key, member in members.items()}
        for key, inner in value.items():
            yield from wrong(inner, by_name.get(key.lower()), key)
    elif isinstance(value, list):
        if len(value) > MOST.get(name, len(value)):
            yield f"{len(value)} {name}"
        for inner in value:
            yield from wrong(inner, shape.member if isinstance(shape, ListShape) else None, name)
    elif isinstance(value, str):
        limits = shape.metadata if shape is not None else {}
        least, most = limits.get("min", 0), limits.get("max", len(value))
        fits = least <= len(value) <= most
        pattern = str(limits.get("pattern", "")).replace(r"\p{L}\p{Z}\p{N}", r"\w\s")
        if not fits or (pattern and not re.search(f"^(?:{pattern})$", value, re.DOTALL)):
            yield f"{name} {value!r}"
        if name in DOCUMENTED and not re.fullmatch(DOCUMENTED[name], value):
            yield f"{name} {value!r}"


def many(form: str, number: int) -> str:
    return ",".join(form.format(each) for each in range(number))


SUBNET, GROUP = "subnet-{:08x}", "sg-{:08x}"


@pytest.mark.parametrize(
    ("name", "longest", "too_long"),
    [
        ("STACK_NAME", "s" * 27, "s" * 28),
        ("STACK_NAME", "abc", "ab"),
        ("STACK_NAME", "xn-a", "xn--a"),
        ("STACK_NAME", "threes", "sthree"),
        ("STAGE", "s" * 35, "s" * 36),
        ("STAGE", "prod-eu", "prod eu"),
        ("ECS_CLUSTER", "c" * 255, "c" * 256),
        ("WORK_POOL", "p" * 210, "p" * 211),
        ("WORK_POOL", "etl-pool", "etl pool"),
        ("WORK_POOL", "etl_2", "etl.2"),
        ("WORK_POOL", "uber", "über"),
        ("SUBNET_IDS", many(SUBNET, 16), many(SUBNET, 17)),
        ("SECURITY_GROUP_IDS", many(GROUP, 5), many(GROUP, 6)),
    ],
)
def test_what_a_service_takes_is_accepted_and_no_more(
    name: str, longest: str, too_long: str
) -> None:
    of_stage = {"STACK_NAME": "spot"} if name == "STAGE" else {}
    assert list(refused({**of_stage, name: longest})) == []
    stack.parameters_of(**{**of_stage, name: longest})
    with pytest.raises(SettingError, match=name):
        stack.parameters_of(**{**of_stage, name: too_long})


NAMES = st.text(st.sampled_from("ab-_. /:é日") | st.characters(codec="latin-1"), max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(["STACK_NAME", "STAGE", "ECS_CLUSTER", "WORK_POOL", "WORK_QUEUES"]),
    value=NAMES,
    long=st.sampled_from([1, 40, 90, 300]),
)
def test_no_accepted_name_is_refused_by_a_service(name: str, value: str, long: int) -> None:
    assert list(refused({"STACK_NAME": "spot", name: value * long})) == []
