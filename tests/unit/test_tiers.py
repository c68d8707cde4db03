"""The runner of the tiers: what ran nothing, or skipped in silence, has failed."""

from pathlib import Path

import pytest

from tests import tiers

PASSES = "def test_it(): assert True\n"
FAILS = "def test_it(): assert False\n"
SKIPS = "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_later(): assert True\n"


@pytest.mark.parametrize(
    ("content", "ran", "complaint"),
    [
        pytest.param(PASSES, 1, None, id="a test that passes"),
        pytest.param("", 0, "it ran no test", id="no test"),
        pytest.param(FAILS, 1, "pytest complains", id="a test that fails"),
        pytest.param(PASSES + SKIPS, 1, "test_later was skipped", id="a test skipped in silence"),
        pytest.param("import no_such_module\n", 1, "pytest complains", id="a broken test file"),
    ],
)
def test_a_tier_is_judged_by_what_it_ran(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    ran: int,
    complaint: str | None,
) -> None:
    (tmp_path / "test_sample.py").write_text(content)
    monkeypatch.setitem(tiers.FOLDERS, "sample", [str(tmp_path)])
    monkeypatch.setitem(tiers.COMMANDS, "sample", [])
    outcome = tiers.run("sample")
    assert outcome.ran == ran
    assert outcome.is_good is (complaint is None)
    assert complaint is None or complaint in outcome.complaints
