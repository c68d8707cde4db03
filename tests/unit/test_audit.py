"""`make audit` fails when it finds something, and when it could not look."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.audit import (
    ACCEPTED_FOR,
    ROOT,
    Accepted,
    Answer,
    Lock,
    Pin,
    ask_all,
    ask_pip_audit,
    batches,
    find_locks,
    judge,
    read_lock,
    read_report,
    table,
)

REPORTS = Path(__file__).parent.parent / "audits"
TODAY = date(2026, 11, 23)
JINJA = Pin("jinja2", "2.11.2")
ATTRS = Pin("attrs", "25.1.0")
LOCK = Lock("requirements.txt", frozenset({JINJA, ATTRS}))
CLEAN = Lock("requirements/clean.txt", frozenset({ATTRS}))
FOUND = "requirements.txt: jinja2==2.11.2 has PYSEC-2021-66"


def report(name: str) -> Answer:
    return read_report("pypi", (REPORTS / name).read_text())


def accepted(id_: str = "PYSEC-2021-66", *, days: int = 1) -> Accepted:
    return Accepted(id_, "jinja2", "only renders our own templates", TODAY - timedelta(days))


def fake_pip_audit(folder: Path, script: str) -> Path:
    """A program in pip-audit's place; in `script`, $report is where its report should be."""
    program = folder / "pip-audit"
    program.write_text(f"#!/bin/sh\nfor report; do :; done\n{script}\n")
    program.chmod(0o755)
    return program


def test_a_clean_lock_whose_every_pin_was_audited_is_good() -> None:
    assert judge([CLEAN], report("vulnerable.json"), (), TODAY) == []


def test_a_vulnerability_is_a_complaint_that_names_lock_and_version() -> None:
    assert judge([LOCK], report("vulnerable.json"), (), TODAY) == [FOUND]


@pytest.mark.parametrize("id_", ["PYSEC-2021-66", "CVE-2020-28493"])
def test_an_accepted_one_is_none_by_whichever_id(id_: str) -> None:
    assert judge([LOCK], report("vulnerable.json"), [accepted(id_)], TODAY) == []


def test_it_counts_again_when_its_acceptance_has_grown_old() -> None:
    old = accepted(days=ACCEPTED_FOR.days + 1)
    complaints = judge([LOCK], report("vulnerable.json"), [old], TODAY)
    assert complaints == [f"{FOUND}, accepted more than 180 days ago: look again"]


def test_another_packages_acceptance_does_not_help() -> None:
    other = Accepted("PYSEC-2021-66", "attrs", "a slip of the pen", TODAY)
    assert FOUND in judge([LOCK], report("vulnerable.json"), [other], TODAY)


def test_an_acceptance_of_what_is_gone_has_to_go() -> None:
    (complaint,) = judge([CLEAN], report("vulnerable.json"), [accepted("CVE-1")], TODAY)
    assert "strike it" in complaint


def test_all_skipped_is_no_clean_bill_though_pip_audit_ends_with_0() -> None:
    complaints = judge([LOCK], report("skipped.json"), (), TODAY)
    assert complaints[0].startswith("nothing could be audited: pypi: 2 skipped, such as: ")
    assert complaints[1].startswith("requirements.txt: 2 of 2 not audited")


def test_one_pin_left_out_is_a_complaint() -> None:
    answer = Answer({ATTRS: ()}, ("pypi: 1 skipped",))
    assert judge([LOCK, CLEAN], answer, (), TODAY) == [
        "requirements.txt: 1 of 2 not audited: jinja2==2.11.2"
    ]


def test_another_version_of_a_package_is_not_the_pinned_one() -> None:
    answer = Answer({ATTRS: (), JINJA._replace(version="2.11.3"): ()})
    assert judge([LOCK], answer, (), TODAY) != []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("attrs>=25\n", id="not pinned"),
        pytest.param("git+https://example.org/attrs.git\n", id="no version"),
        pytest.param("-r other.txt\nattrs==25.1.0\n", id="elsewhere"),
    ],
)
def test_a_lock_that_cannot_be_read_whole_is_a_complaint(text: str) -> None:
    assert judge([read_lock("x.txt", text)], Answer({ATTRS: ()}), (), TODAY) != []


def test_a_lock_is_read_with_its_markers_whatever_this_machine_is() -> None:
    text = (
        "ansicon==1.89.0 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n    # via blessed\n"
        "networkx==3.6.1 ; python_full_version < '3.12' \\\n    --hash=sha256:00\n"
        "networkx==3.7 ; python_full_version >= '3.12'\n"
    )
    lock = read_lock("x.txt", text)
    assert lock.unreadable == ()
    assert sorted(map(str, lock.pins)) == ["ansicon==1.89.0", "networkx==3.6.1", "networkx==3.7"]


def test_each_of_this_projects_locks_is_found_and_can_be_read() -> None:
    locks, complaints = find_locks(ROOT)
    assert complaints == []
    names = {lock.name for lock in locks}
    assert {"requirements-dev.txt", "requirements/runtime.txt", "requirements/audit.txt"} <= names
    for lock in locks:
        pinned = [x for x in (ROOT / lock.name).read_text().splitlines() if "==" in x.split("#")[0]]
        assert (lock.unreadable, len(lock.pins)) == ((), len(pinned))


def test_a_lock_that_was_never_made_is_missed(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    for stem in ("dev", "docs"):
        (tmp_path / "requirements" / f"{stem}.in").touch()
    (tmp_path / "requirements-dev.txt").write_text("attrs==25.1.0\n")
    locks, complaints = find_locks(tmp_path)
    assert [lock.name for lock in locks] == ["requirements-dev.txt"]
    assert complaints == ["requirements/docs.txt is missing: make lock"]


def test_a_lock_for_nothing_is_left_out_as_long_as_it_pins_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "lambda.in").write_text("# nothing\n")
    (tmp_path / "requirements" / "dev.in").write_text("attrs\n")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "requirements-dev.txt").write_text("attrs==25.1.0\n")
    assert [lock.name for lock in find_locks(tmp_path)[0]] == ["requirements-dev.txt"]
    (tmp_path / "requirements.txt").write_text("jinja2==2.11.2\n")
    assert [lock.name for lock in find_locks(tmp_path)[0]] == [
        "requirements-dev.txt",
        "requirements.txt",
    ]


def test_a_project_without_locks_is_not_good(tmp_path: Path) -> None:
    assert find_locks(tmp_path)[1] != []


def test_two_versions_of_a_package_are_asked_about_one_after_the_other() -> None:
    newer = JINJA._replace(version="3.1.6")
    assert batches([newer, JINJA, ATTRS]) == [[ATTRS, JINJA], [newer]]


def test_the_second_service_is_asked_about_what_the_first_left_open() -> None:
    asked: list[tuple[str, list[Pin]]] = []

    def ask(service: str, pins: Sequence[Pin]) -> Answer:
        asked.append((service, sorted(pins)))
        if service == "pypi":
            return Answer({ATTRS: ()}, ("pypi: 1 skipped",))
        return Answer({JINJA: (("PYSEC-2021-66",),)})

    answer = ask_all(ask, [JINJA, ATTRS, ATTRS])
    assert asked == [("pypi", [ATTRS, JINJA]), ("osv", [JINJA])]
    assert judge([LOCK], answer, (), TODAY) == [FOUND]


def test_a_report_counts_whatever_the_exit_code(tmp_path: Path) -> None:
    program = fake_pip_audit(tmp_path, f'cp {REPORTS}/vulnerable.json "$report"; exit 1')
    answer = ask_pip_audit("pypi", [JINJA, ATTRS], program)
    assert answer == report("vulnerable.json")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo 'ConnectionError: no route' >&2; exit 1", "no route", id="crash"),
        pytest.param("exit 0", "ended with 0", id="silence is no clean bill"),
        pytest.param('echo "{" > "$report"', "unreadable", id="half a report"),
        pytest.param('echo "{}" > "$report"', "unreadable", id="another report"),
    ],
)
def test_without_a_report_nothing_was_audited(tmp_path: Path, script: str, said: str) -> None:
    answer = ask_pip_audit("osv", [ATTRS], fake_pip_audit(tmp_path, script))
    assert answer.audited == {}
    assert said in answer.failures[0]
    assert judge([CLEAN], answer, (), TODAY)[0].startswith("nothing could be audited: osv: ")


def test_without_pip_audit_nothing_was_audited(tmp_path: Path) -> None:
    answer = ask_pip_audit("pypi", [ATTRS], tmp_path / "pip-audit")
    assert "cannot be run" in answer.failures[0]


def test_pip_audit_is_asked_about_versions_without_their_markers(tmp_path: Path) -> None:
    saved = tmp_path / "asked"
    script = f'while [ "$1" != --requirement ]; do shift; done; cp "$2" {saved}'
    ask_pip_audit("pypi", [ATTRS, JINJA], fake_pip_audit(tmp_path, script))
    assert saved.read_text() == "attrs==25.1.0\njinja2==2.11.2\n"


def test_the_table_has_a_row_per_lock_and_calls_unknown_what_was_not_audited() -> None:
    rows = [line.split() for line in table([LOCK, CLEAN], report("vulnerable.json"))[1:]]
    assert rows == [["requirements.txt", "2", "2", "1"], ["requirements/clean.txt", "1", "1", "0"]]
    assert table([LOCK], report("skipped.json"))[1].split()[-1] == "unknown"
