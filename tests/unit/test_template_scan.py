"""A scan that found something new, nothing at all, or could not be made, is no good scan."""

import json
from pathlib import Path
from typing import Any

import pytest

import infra
from tests.template_scan import (
    ACCEPTED,
    Accepted,
    Finding,
    Scan,
    ScanFailedError,
    judge,
    read,
    scan,
)

OPEN = Finding("CKV_AWS_1", "Bucket", "Ensure it is closed")
KNOWN = Accepted("CKV_AWS_1", "Bucket", "it is meant to be open")


def make_report(*failed: tuple[str, str, str], passed: int = 3, unread: int = 0) -> str:
    report: dict[str, Any] = {
        "results": {
            "failed_checks": [
                {"check_id": check, "resource": resource, "check_name": title}
                for check, resource, title in failed
            ],
            "parsing_errors": ["stack.json"] * unread,
        },
        "summary": {"passed": passed, "resource_count": 2},
    }
    return json.dumps(report)


def test_report_is_read() -> None:
    report = make_report(("CKV_AWS_1", "AWS::S3::Bucket.Bucket", "Ensure it is closed"))
    assert read(report) == Scan(2, 3, (OPEN,))


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        (make_report(unread=1, passed=0), "cannot read the template"),
        (make_report(passed=0), "scanned nothing"),
        ("", "unreadable"),
        ('{"passed": 0, "failed": 0}', "unreadable"),  # what it says without a template
    ],
    ids=["parsing error", "nothing passed", "silence", "no template"],
)
def test_report_that_says_nothing_is_a_failure(report: str, complaint: str) -> None:
    with pytest.raises(ScanFailedError, match=complaint):
        read(report)


def test_checkov_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ScanFailedError, match="cannot be run"):
        scan(tmp_path / "stack.json", program=tmp_path / "checkov")


def test_new_finding_is_a_complaint_and_an_accepted_one_is_not() -> None:
    assert judge(Scan(2, 3, (OPEN,)), []) == ["Bucket: Ensure it is closed (CKV_AWS_1)"]
    assert judge(Scan(2, 3, (OPEN,)), [KNOWN]) == []
    other = Accepted("CKV_AWS_1", "Queue", "another resource")
    assert len(judge(Scan(2, 3, (OPEN,)), [other])) == 2


def test_accepted_finding_that_is_gone_is_a_complaint() -> None:
    assert "strike it" in judge(Scan(2, 3, ()), [KNOWN])[0]


def test_each_accepted_finding_is_of_a_resource_that_there_is_and_says_why() -> None:
    resources = infra.load("stack.json")["Resources"]
    for accepted in ACCEPTED:
        assert accepted.resource in resources
        assert len(accepted.reason) > 20
