"""What `circuit-script test` says of an app: the notes of all processes together, and what refuses a deploy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circuit_script.settings_test import TestSettings
from circuit_script.testing.uses import NEAR

SLOWEST = 10
DEPTH = "depth"  # each execution is at least its own
LISTED = 5  # lines that did not run
CUT = "The tests ended before all had run. Look for os._exit in a test, or in what it imports."
Notes = Sequence[Mapping[str, Any]]


def report(reports: Path, code: int, settings: TestSettings, *, partial: bool) -> dict[str, Any]:
    """The report that `deploy` reads. ``code`` is that of pytest's process, which counts as passed only if pytest has
    said so itself; ``partial`` says that not every test was to run."""
    notes = [json.loads(path.read_text("utf-8")) for path in sorted(reports.glob("*.json"))]
    said = [note["ended"] for note in notes if "ended" in note]
    cut = code == 0 and not said
    code = code or max(said, default=1)
    coverage, missing = _coverage(notes)
    found: dict[str, Any] = {
        "passed": code == 0,
        "pytest": code,
        "cut": cut,
        "handlers": _handlers(notes),
        "coverage": coverage,
        "limits": _limits(notes, settings),
        "slowest": _slowest(notes),
        "bulk": _bulk(notes),
    }
    broken = next((note["broken"] for note in notes if "broken" in note), None)
    if broken is not None:
        refusals = [f"The app cannot be started: {broken}"]
    elif cut:
        refusals = [CUT]
    elif code != 0:
        refusals = ["Not every test passes: mend what failed, as pytest says above."]
    elif partial:
        refusals = ["Only some of the tests ran: run all of them, without a choice."]
    else:
        refusals = [*_unmeasured(notes), *_refusals(found, missing, settings)]
    return {**found, "refusals": refusals}


def _handlers(notes: Notes) -> dict[str, Any]:
    """How the tests used each handler."""
    found: dict[str, Any] = {}
    for name, use in _uses(notes):
        known = found.setdefault(name, {"runs": 0, "records": 0, "usage": {}, "ceilings": {}})
        for count in ("runs", "records"):
            known[count] += use[count]
        for kind in ("usage", "ceilings"):
            for limit, value in use[kind].items():
                known[kind][limit] = max(value, known[kind].get(limit, 0))
    return dict(sorted(found.items()))


def _coverage(notes: Notes) -> tuple[dict[str, Any], dict[str, tuple[str, Sequence[int]]]]:
    """Percents in all, by handler and by file; and by handler its file and the lines of it that did not run."""
    counted: dict[str, set[int]] = {}
    ran: dict[str, set[int]] = {}
    functions: dict[str, tuple[str, list[int]]] = {}
    for note in notes:
        for file, lines in note.get("lines", {}).items():
            counted.setdefault(file, set()).update(lines["counted"])
            ran.setdefault(file, set()).update(lines["ran"])
        functions |= note.get("functions", {})
    files = {file: _percent(len(ran[file]), len(lines)) for file, lines in sorted(counted.items())}
    handlers: dict[str, float] = {}
    missing: dict[str, tuple[str, Sequence[int]]] = {}
    for name, (file, lines) in sorted(functions.items()):
        left = [line for line in lines if line not in ran.get(file, ())]
        handlers[name] = _percent(len(lines) - len(left), len(lines))
        if left:
            missing[name] = (file, left)
    total = _percent(sum(map(len, ran.values())), sum(map(len, counted.values()))) if any(counted.values()) else None
    return {"total": total, "handlers": handlers, "files": files}, missing


def _limits(notes: Notes, settings: TestSettings) -> list[dict[str, Any]]:
    """The limits of which more than 80 percent was used, the nearest first."""
    nearest: dict[tuple[str, str], dict[str, Any]] = {}
    for name, use in _uses(notes):
        for limit, each in ((limit, each) for limit, each in use["nearest"].items() if limit != DEPTH):
            if each["share"] > nearest.get((name, limit), {"share": NEAR})["share"]:
                nearest[name, limit] = each
    found = [
        {"handler": name, "limit": limit, **each, "allowed": f"{name}.{limit}" in settings.allow_limits}
        for (name, limit), each in nearest.items()
    ]
    return sorted(found, key=lambda each: -each["share"])


def _slowest(notes: Notes) -> list[dict[str, Any]]:
    seconds = {test: each for note in notes for test, each in note.get("seconds", {}).items()}
    most = sorted(seconds, key=lambda test: -seconds[test])[:SLOWEST]
    return [{"test": test, "seconds": round(seconds[test], 3)} for test in most]


def _bulk(notes: Notes) -> dict[str, Any]:
    """Of several processes the one counts whose tests had shown what the trigger needs, and then who succeeded."""
    found: dict[str, Any] = {}
    for note in notes:
        for name, each in note.get("bulk", {}).items():
            best = found.get(name, each)
            found[name] = max(best, each, key=lambda one: (one["known"], one["succeeded"]))
    return {
        name: {"records": each["records"], "succeeded": each["succeeded"], "reason": each["reason"]}
        for name, each in sorted(found.items())
    }


def _unmeasured(notes: Notes) -> Iterator[str]:
    """What nobody counts the lines of, each a sentence with its cure."""
    measured = [note["lines"] for note in notes if "lines" in note]
    if measured and not any(measured):
        yield "No line of the app counts: [test] omit in circuit.toml leaves out all of it."
    found = {name: file for note in notes for name, file in note.get("unmeasured", {}).items()}
    for name, file in sorted(found.items()):
        yield f"{name} stands in {file}, which is taken for a test: none of its lines count. Rename or move it."


def _refusals(
    found: Mapping[str, Any], missing: Mapping[str, tuple[str, Sequence[int]]], settings: TestSettings
) -> Iterator[str]:
    """Why the app may not be deployed, each a sentence with its cure."""
    coverage, least = found["coverage"], settings.coverage
    for name, percent in coverage["handlers"].items():
        if percent < least:
            file, lines = missing[name]
            cure = f"Test {file}, {_spoken(lines)}."
            yield f"{name} is covered to {percent:g} percent, and {least:g} are needed. {cure}"
    total = coverage["total"]
    if total is not None and total < least:
        worst = sorted(coverage["files"], key=lambda file: coverage["files"][file])[:3]
        shown = ", ".join(f"{file} ({coverage['files'][file]:g} percent)" for file in worst)
        yield f"The app is covered to {total:g} percent in all, and {least:g} are needed. Test more of {shown}."
    for each in found["limits"]:
        if not each["allowed"]:
            name = f"{each['handler']}.{each['limit']}"
            yield (
                f"{each['handler']} uses {100 * each['share']:.0f} percent of its limit {each['limit']}, "
                f"in {each['test']}. "
                f'Raise the limit, use less, or allow it in circuit.toml: [test] allow_limits = ["{name}"].'
            )
    for name, each in found["bulk"].items():
        if not each["succeeded"]:
            yield (
                f"{name} does not take {each['records']} records at once: {each['reason'].rstrip('.')}. "
                "Mend it, give it a smaller batch_size, or show in a test of it what it needs (records, mocks)."
            )


def _spoken(lines: Sequence[int]) -> str:
    """Lines for a person: "lines 3 to 5, 9"."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][-1] + 1:
            parts[-1].append(line)
        else:
            parts.append([line])
    shown = [str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts]
    more = f" and {len(shown) - LISTED} more places" if len(shown) > LISTED else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {', '.join(shown[:LISTED])}{more}"


def _percent(part: int, whole: int) -> float:
    """To one place, and never rounded up to what is needed."""
    return int(1000 * part / whole) / 10 if whole else 100.0


def _uses(notes: Notes) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for note in notes:
        yield from note.get("uses", {}).items()
