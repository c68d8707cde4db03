"""The planted mistakes: each still fits the code, and names tests that are there.

That a test notices them is tried in `make test-all`; here is seen in time what would prevent that.
"""

import re

import pytest

from tests.faults.mutants import IN_MEMORY, MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_fits_the_code_in_one_place_and_names_its_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.right) == 1
    assert mutant.wrong != mutant.right
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert file.startswith(IN_MEMORY)
        start = rf"^def {re.escape(name.partition('[')[0])}\("
        assert re.search(start, (ROOT / file).read_text(), re.MULTILINE), test
