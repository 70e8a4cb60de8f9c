"""The report of `circuit-script test`: notes of several processes together, and what refuses a deploy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from circuit_script.settings_test import TestSettings
from circuit_script.testing.report import report

PLAIN = TestSettings()


def use(**more: Any) -> dict[str, Any]:
    return {"runs": 1, "records": 2, "usage": {"callouts": 3}, "ceilings": {"callouts": 50}, "nearest": {}} | more


def near(share: float) -> dict[str, Any]:
    return {"used": share * 100, "ceiling": 100, "share": share, "test": "tests/test_a.py::test_it"}


def write(folder: Path, *notes: dict[str, Any]) -> Path:
    for number, each in enumerate(notes):
        (folder / f"app-{number}.json").write_text(json.dumps(each))
    return folder


def reported(folder: Path, *notes: dict[str, Any], settings: TestSettings = PLAIN, **more: Any) -> dict[str, Any]:
    ended = {"ended": 0, "seconds": {}}
    return report(write(folder, *notes, ended), more.pop("code", 0), settings, **{"partial": False, **more})


def test_lines_that_any_process_ran_are_covered_and_use_adds_up(tmp_path: Path) -> None:
    counted = list(range(1, 21))
    notes = [
        {
            "lines": {"app.py": {"counted": counted, "ran": ran}},
            "functions": {"score": ["app.py", [3, 4]]},
            "uses": uses,
        }
        for ran, uses in (([*range(1, 4)], {"score": use()}), ([*range(4, 17)], {"score": use(usage={"callouts": 9})}))
    ]
    found = reported(tmp_path, *notes)
    assert found["coverage"] == {"total": 80.0, "handlers": {"score": 100.0}, "files": {"app.py": 80.0}}
    assert found["handlers"]["score"] == {
        "runs": 2,
        "records": 4,
        "usage": {"callouts": 9},
        "ceilings": {"callouts": 50},
    }
    assert found["refusals"] == []


def test_percents_are_never_rounded_up_to_what_is_needed(tmp_path: Path) -> None:
    lines = {"app.py": {"counted": list(range(10_000)), "ran": list(range(7_499))}}
    found = reported(tmp_path, {"lines": lines})
    assert found["coverage"]["total"] == 74.9
    assert found["refusals"] == [
        "The app is covered to 74.9 percent in all, and 75 are needed. Test more of app.py (74.9 percent)."
    ]


def test_a_handler_that_is_not_covered_names_its_lines(tmp_path: Path) -> None:
    lines = {
        "app.py": {"counted": list(range(1, 101)), "ran": [each for each in range(1, 101) if each not in (7, 8, 20)]}
    }
    found = reported(tmp_path, {"lines": lines, "functions": {"score": ["app.py", [6, 7, 8, 20]]}})
    assert found["refusals"] == ["score is covered to 25 percent, and 75 are needed. Test app.py, lines 7 to 8, 20."]


def test_a_handler_whose_lines_nobody_counts_is_refused(tmp_path: Path) -> None:
    found = reported(tmp_path, {"unmeasured": {"split": "app/ab_test.py"}})
    (refusal,) = found["refusals"]
    assert refusal.startswith("split stands in app/ab_test.py, which is taken for a test")


def test_an_app_of_which_everything_is_left_out_is_refused(tmp_path: Path) -> None:
    found = reported(tmp_path, {"lines": {}, "functions": {}})
    assert found["refusals"] == ["No line of the app counts: [test] omit in circuit.toml leaves out all of it."]


def test_limits_over_80_percent_refuse_unless_they_are_allowed(tmp_path: Path) -> None:
    uses = {"score": use(nearest={"callouts": near(0.9), "memory": near(0.8), "depth": near(1.0), "jobs": near(0.85)})}
    settings = TestSettings(allow_limits=("score.jobs",))
    found = reported(tmp_path, {"uses": uses}, settings=settings)
    assert [(each["limit"], each["allowed"]) for each in found["limits"]] == [("callouts", False), ("jobs", True)]
    (refusal,) = found["refusals"]
    assert refusal.startswith("score uses 90 percent of its limit callouts, in tests/test_a.py::test_it.")


def test_of_bulk_tests_the_one_counts_whose_process_knew_what_the_trigger_needs(tmp_path: Path) -> None:
    failed = {"succeeded": False, "reason": "it breached: callouts", "known": False, "records": 200}
    well = {"succeeded": True, "reason": "", "known": True, "records": 200}
    found = reported(tmp_path, {"bulk": {"a": failed, "b": failed}}, {"bulk": {"a": well}})
    assert found["bulk"]["a"] == {"records": 200, "succeeded": True, "reason": ""}
    (refusal,) = found["refusals"]
    assert refusal.startswith("b does not take 200 records at once: it breached: callouts. Mend it")


def test_what_is_not_known_is_the_only_refusal(tmp_path: Path) -> None:
    lines = {"lines": {"app.py": {"counted": [1], "ran": []}}}
    for more, words in (
        ({"code": 1}, "Not every test passes"),
        ({"partial": True}, "Only some of the tests ran"),
    ):
        (refusal,) = reported(tmp_path, lines, **more)["refusals"]
        assert refusal.startswith(words)
    (refusal,) = reported(tmp_path, {"broken": "app.py:1: no"})["refusals"]
    assert refusal == "The app cannot be started: app.py:1: no"


def test_the_ten_slowest_tests_come_first(tmp_path: Path) -> None:
    found = reported(tmp_path, {"seconds": {f"test_{number}": number / 10 for number in range(15)}})
    assert [each["test"] for each in found["slowest"]] == [f"test_{number}" for number in range(14, 4, -1)]


def test_who_ends_pytest_with_a_zero_has_not_passed(tmp_path: Path) -> None:
    """os._exit(0) in a test, or after others have failed."""
    found = report(tmp_path, 0, PLAIN, partial=False)
    assert (found["passed"], found["pytest"], found["cut"]) == (False, 1, True)
    assert found["refusals"] == [
        "The tests ended before all had run. Look for os._exit in a test, or in what it imports."
    ]
    found = report(write(tmp_path, {"ended": 1}), 0, PLAIN, partial=False)
    assert (found["passed"], found["pytest"], found["cut"]) == (False, 1, False)
    assert "Not every test passes" in found["refusals"][0]
