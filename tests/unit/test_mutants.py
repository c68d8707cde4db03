"""The planted mistakes fit the code and name tests that are there; so do the rows of tests/rows.py.

That a test notices them is tried in `make test-all`; here is seen in time what would prevent that.
"""

import re

import pytest

from tests.faults.mutants import IN_MEMORY, MUTANTS, ROOT, Mutant
from tests.rows import rows_of


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_fits_the_code_in_one_place_and_names_its_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.right) == 1
    assert mutant.wrong != mutant.right
    assert mutant.tests
    for test in mutant.tests:
        assert test.startswith(IN_MEMORY)
        assert is_there(test), test


@pytest.mark.parametrize(("name", "number"), [("world", 21), ("safe", 13)])
def test_the_tests_that_show_what_was_promised_are_there(name: str, number: int) -> None:
    rows = rows_of(name)
    assert [row["row"] for row in rows] == list(range(1, number + 1))
    assert all(row["tests"] for row in rows)
    assert [test for row in rows for test in row["tests"] if not is_there(test)] == []


def is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    start = rf"^def {re.escape(name.partition('[')[0])}\("
    return bool(re.search(start, (ROOT / file).read_text(), re.MULTILINE))
