"""What the Judgment Protocol said of the texts of a batch, as a handler sees it. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_script.execution.authoring.records import Records
from circuit_script.execution.outcome import PlainVerdict
from circuit_script.judgment.untrusted import Untrusted
from circuit_script.judgment.verdict import Action, Finding, Verdict

WHOLE = ""  # the place of a verdict on all of a record
LONG_NAME = 32  # characters of a field's name that stand in a place
_NEUTRALIZE = Action.NEUTRALIZE


def verdicts_of(said: Mapping[str, PlainVerdict]) -> dict[str, Verdict]:
    """The verdicts on one record, by the places of its texts ("notes", "deal.items[2].title")."""
    return {
        path: Verdict(
            score,
            Action(action),
            tuple(
                Finding(level, strength, (first, last), evidence, why, pattern)
                for level, strength, first, last, evidence, why, pattern in findings
            ),
            source,
            field,
        )
        for path, (score, action, source, field, findings) in said.items()
    }


def mark(records: Records, object_: str, verdicts: Mapping[int, Mapping[str, Verdict]]) -> None:
    """Let each text that is to be used as data only be `Untrusted`; of a record that was too much to be read, all."""
    for place, of_record in verdicts.items():
        told = {path: each for path, each in of_record.items() if each.action is _NEUTRALIZE}
        record = records.at(place)
        names = {_top(path) for path in told}
        for field in [each for each in record if WHOLE in told or _top(each[:LONG_NAME]) in names]:
            record[field] = _marked(record[field], field[:LONG_NAME], object_, told)


def _marked(value: Any, path: str, object_: str, told: Mapping[str, Verdict]) -> Any:
    """The value, with each text in it that has a verdict as `Untrusted`."""
    if isinstance(value, str):
        verdict = told.get(path) or told.get(WHOLE)
        return value if verdict is None else Untrusted(value, f"{object_}.{path}", verdict)
    if isinstance(value, dict):
        return {key: _marked(each, f"{path}.{str(key)[:LONG_NAME]}", object_, told) for key, each in value.items()}
    if isinstance(value, list):
        return [_marked(each, f"{path}[{n}]", object_, told) for n, each in enumerate(value)]
    return value


def _top(path: str) -> str:
    return path.partition(".")[0].partition("[")[0]
