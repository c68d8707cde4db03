"""MiniStack itself: nobody else reaches it, and nothing of it is left."""

import socket
from pathlib import Path

import psutil
import pytest

from localcloud.processes import Supervisor
from tests.second_aws.server import MiniStack, open_to_others


def test_it_listens_on_loopback_alone_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with (
        Supervisor.open(tmp_path) as supervisor,
        MiniStack(supervisor.folder / "ministack", supervisor.spawn) as ministack,
    ):
        account = ministack.account()
        account.client("s3").create_bucket(Bucket="left-behind")
        address, port = account.endpoint_url.removeprefix("http://").split(":")
        assert any(found.endswith(f"port={port})") for found in open_to_others(to_us=()))
        assert list(open_to_others()) == []
    assert set(psutil.Process().children(recursive=True)) <= before
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, int(port)), 1)
