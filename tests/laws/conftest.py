"""An empty universe."""

import pytest

from tests.laws.universe import Universe


@pytest.fixture
def universe() -> Universe:
    return Universe()
