"""The planted mistakes: each still fits the code, and names tests that are there.

That a test notices them is tried there; here is seen in time what would stop it from being tried.
"""

import re

import pytest

from tests.faults.mutants import MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_fits_the_code_in_one_place(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.right) == 1
    assert mutant.wrong != mutant.right


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_ought_to_notice_it_are_there(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")  # a whole file, where there is no name
        start = rf"^def {re.escape(name.partition('[')[0])}\(" if name else ""
        assert re.search(start, (ROOT / file).read_text(), re.MULTILINE), test
