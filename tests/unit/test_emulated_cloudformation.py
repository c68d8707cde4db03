"""The embedded cloud's CloudFormation leaves moto's alone while no emulated AWS is open."""

import json

import boto3
import pytest
from moto import mock_aws

from localcloud.cloudformation import requests


def test_moto_answers_as_it_does_where_no_emulated_aws_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    requests.install()
    topic = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "alarms"}}
    with mock_aws():
        client = boto3.client("cloudformation", region_name="us-east-1")
        template = json.dumps({"Resources": {"Topic": topic}})
        client.create_stack(StackName="in-moto", TemplateBody=template)
        [stack] = client.describe_stacks()["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        client.delete_stack(StackName="in-moto")
        assert client.describe_stacks()["Stacks"] == []
