"""What keeps an app from going live, decided from what its tests and its import say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from circuit_script.cli import deploy_gate as gate
from circuit_script.errors import DeployRefused

GOOD: dict[str, Any] = {
    "passed": True,
    "pytest": 0,
    "handlers": {"score": {"runs": 2}, "idle": {"runs": 0}},
    "coverage": {"total": 91.26, "handlers": {"score": 75.0}, "files": {"app/triggers.py": 91.26}},
    "limits": [],
    "bulk": {"score": {"records": 200, "succeeded": True, "reason": ""}},
    "refusals": [],
}
NEAR = {"handler": "score", "limit": "callouts", "used": 9, "ceiling": 10, "share": 0.9, "allowed": False}


def refusal(check: Callable[[], object]) -> DeployRefused:
    with pytest.raises(DeployRefused) as caught:
        check()
    assert caught.value.cure, "it says what to do"
    return caught.value


def test_a_good_report_passes_and_each_gate_says_by_what() -> None:
    assert gate.check_tests(GOOD) == "passed, 1 handler ran, each with 200 records"
    assert gate.check_coverage(GOOD, 75) == "91.2 % of the lines"
    assert gate.check_limits(GOOD) == "none over 80 %"
    gate.check_refusals(GOOD)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pytest": 1}, "A test has failed"),
        ({"pytest": 5}, "no tests"),
        ({"pytest": 1, "cut": True}, "ended before all had run"),
        ({"pytest": None}, "A test has failed"),
        ({"bulk": {"score": {"records": 200, "succeeded": False, "reason": "it hung"}}}, "200 records.*score: it hung"),
    ],
)
def test_tests_that_do_not_pass_refuse(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(DeployRefused, match=why):
        gate.check_tests({**GOOD, **changes})


@pytest.mark.parametrize(
    ("coverage", "enough", "why"),
    [
        ({"total": 74.96, "handlers": {}, "files": {"app/a.py": 12.0}}, 75, "all: 74.9 %.*Least in app/a.py"),
        ({"total": 99, "handlers": {"score": 74.0}, "files": {}}, 75, "score: 74 %"),
        ({"total": 99, "handlers": {"score": None}, "files": {}}, 75, "score: not run"),
        ({"total": 89, "handlers": {}, "files": {}}, 90, "less than 90 %"),
        ({"total": None, "handlers": {}, "files": {}}, 75, "not measured"),
        (None, 75, "not measured"),
    ],
)
def test_too_little_coverage_refuses_and_is_never_rounded_up(coverage: Any, enough: float, why: str) -> None:
    said = refusal(lambda: gate.check_coverage({**GOOD, "coverage": coverage}, enough))
    assert said.detail
    with pytest.raises(DeployRefused, match=why):
        gate.check_coverage({**GOOD, "coverage": coverage}, enough)


def test_a_limit_that_is_nearly_used_up_refuses_unless_it_is_allowed() -> None:
    said = refusal(lambda: gate.check_limits({**GOOD, "limits": [NEAR]}))
    assert "score.callouts 9 of 10" in said.detail
    assert 'allow_limits = ["score.callouts"]' in said.cure
    allowed = {**GOOD, "limits": [{**NEAR, "allowed": True}]}
    assert gate.check_limits(allowed) == "1 near to a limit, which circuit.toml allows"
    assert gate.check_limits({**GOOD, "limits": [{**NEAR, "share": 0.8}]}) == "none over 80 %"


def test_a_report_without_figures_passes_no_gate() -> None:
    refusal(lambda: gate.check_coverage({"pytest": 0}, 75))
    refusal(lambda: gate.check_limits({"pytest": 0}))


def test_whatever_else_the_report_refuses_is_said_in_its_words() -> None:
    with pytest.raises(DeployRefused, match=r"The app leaks\. Mend it\."):
        gate.check_refusals({**GOOD, "refusals": ["The app leaks. Mend it."]})
    with pytest.raises(DeployRefused, match="does not pass"):
        gate.check_refusals({**GOOD, "passed": False})


@pytest.mark.parametrize("name", ["v1.4.0", "v0.0.1", "v12.0.3", None])
def test_versions_are_like_v1_4_0(name: str | None) -> None:
    gate.check_version(name)


@pytest.mark.parametrize("name", ["1.4.0", "v1.4", "v1.04.0", "v1.4.0-rc1", "latest", "", "v1.4.0\n", "v1.1\u0664.0"])
def test_another_name_of_a_version_is_refused(name: str) -> None:
    refusal(lambda: gate.check_version(name))


def test_a_slow_import_and_what_it_leaves_behind_are_refused_with_their_places() -> None:
    assert gate.check_import((), (), 0.42, 10) == "0.4 s in a clean copy"
    said = refusal(lambda: gate.check_import((), ("app/a.py:3 takes 9.1 s",), 12.0, 10))
    assert "12.0 s (app/a.py:3 takes 9.1 s)" in said.detail
    warning = "importing the app started the thread 'x': children do not have it. Start it elsewhere."
    said = refusal(lambda: gate.check_import((warning,), ("app/a.py:3 starts a thread",), 0.1, 10))
    assert said.detail.startswith("Importing the app started the thread 'x' (app/a.py:3 starts a thread)")
    assert said.cure == "Start it elsewhere."


def test_an_import_loop_is_named_with_each_of_its_lines(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "__init__.py").write_text("")
    (app / "a.py").write_text("import os\nfrom . import b\n")
    (app / "b.py").write_text("from app.c import three\n")
    (app / "c.py").write_text("\n\nimport app.a\n")
    (app / "d.py").write_text("import app.a\ndef later():\n    import app.d\n")
    assert gate.find_loop(tmp_path) == ["app/a.py:2", "app/b.py:1", "app/c.py:3"]
    (app / "c.py").write_text("def f():\n    import app.a\n")
    assert gate.find_loop(tmp_path) == [], "what a function imports is no loop"


def test_a_missing_module_is_told_from_one_that_is_no_part_of_a_release(tmp_path: Path) -> None:
    author = tmp_path / "author"
    (author / "node_modules").mkdir(parents=True)
    why = f"{tmp_path}/copy/app/a.py:1: ModuleNotFoundError: No module named "
    said = gate.refused_import(f"{why}'node_modules'", "", tmp_path / "copy", author)
    assert "no part of a release" in said.cure
    assert said.detail.startswith("app/a.py:1: ")
    said = gate.refused_import(f"{why}'httpx'", "", tmp_path / "copy", author)
    assert "httpx==" in said.cure
    assert "VERSION" not in said.cure


def test_what_only_one_laptop_has_is_told_from_an_error(tmp_path: Path) -> None:
    copy, author = tmp_path / "copy", tmp_path / "author"
    for folder in (copy / "app", author / "app"):
        folder.mkdir(parents=True)
    (copy / "app" / "a.py").write_text("import os\nKEY = os.environ['CRM_KEY']\nWORDS = {}['CRM_KEY']\n")
    (author / "app" / "model.bin").write_text("x")
    said = {
        line: gate.refused_import(f"{copy}/app/a.py:{line}: KeyError: 'CRM_KEY'", "Mend", copy, author)
        for line in (2, 3)
    }
    assert 'secret("CRM_KEY")' in said[2].cure
    assert said[3].cure == "Mend"
    why = f"{copy}/app/a.py:1: FileNotFoundError: [Errno 2] No such file or directory: "
    assert "no part of a release" in gate.refused_import(f"{why}'app/model.bin'", "Mend", copy, author).cure
    assert gate.refused_import(f"{why}'app/other.bin'", "Mend", copy, author).cure == "Mend"


def test_files_that_have_changed_are_named() -> None:
    gate.check_unchanged({"a.py": b"1"}, {"a.py": b"1"})
    said = refusal(
        lambda: gate.check_unchanged({"a.py": b"1", "b.py": b"1", "c.py": b"1"}, {"a.py": b"2", "b.py": b"1"})
    )
    assert "a.py, c.py" in said.detail


def test_a_validation_counts_for_a_day() -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    report = gate.validated(GOOD, [], {})
    assert gate.check_validated(report, datetime.now(UTC), {}) == "0 min ago"
    old = {"deploy": {"validated_at": (now - timedelta(hours=25)).isoformat()}}
    assert "25 hours ago" in refusal(lambda: gate.check_validated(old, now, {})).detail
    assert "never validated" in refusal(lambda: gate.check_validated({}, now, {})).detail


@pytest.mark.parametrize("name", ["platform", "Python"])
def test_a_validation_by_another_platform_or_python_does_not_count(tmp_path: Path, name: str) -> None:
    ground = gate.ground(tmp_path)
    report = gate.validated(GOOD, [], ground)
    said = refusal(lambda: gate.check_validated(report, datetime.now(UTC), {**ground, name: "99.1"}))
    assert f"{name} (99.1, was {ground[name]})" in said.detail


def test_a_validation_counts_for_the_settings_under_which_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "circuit.toml").write_text("[test]\ncoverage = 75\n")
    report = gate.validated(GOOD, [], gate.ground(tmp_path))
    assert gate.check_validated(report, datetime.now(UTC), gate.ground(tmp_path)) == "0 min ago"
    (tmp_path / "circuit.toml").write_text("[test]\ncoverage = 5\n")
    said = refusal(lambda: gate.check_validated(report, datetime.now(UTC), gate.ground(tmp_path)))
    assert said.detail == "Since these files were validated, this has changed: circuit.toml."
    assert "--validate-only" in said.cure
    before_that_was_noted = {"deploy": {"validated_at": datetime.now(UTC).isoformat()}}
    refusal(lambda: gate.check_validated(before_that_was_noted, datetime.now(UTC), gate.ground(tmp_path)))


def test_a_validation_counts_for_what_the_shell_says_of_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUIT_TEST__OMIT", '["app/*"]')
    monkeypatch.setenv("CIRCUIT_TEST_DATABASE_URL", "postgresql:///where-tests-are")
    report = gate.validated(GOOD, [], gate.ground(tmp_path))
    monkeypatch.delenv("CIRCUIT_TEST_DATABASE_URL")
    assert gate.check_validated(report, datetime.now(UTC), gate.ground(tmp_path)) == "0 min ago"
    monkeypatch.delenv("CIRCUIT_TEST__OMIT")
    said = refusal(lambda: gate.check_validated(report, datetime.now(UTC), gate.ground(tmp_path)))
    assert 'CIRCUIT_TEST__OMIT (not set, was ["app/*"])' in said.detail
