"""A shadow's report for people and for scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from circuit_script.cli.output import add_rows, day, table, visible
from circuit_script.releases.shadow_report import Found, ShadowReport
from circuit_script.releases.shadows import Shadow

WIDEST = 48  # letters of a value


def show_report(out: Console, report: ShadowReport) -> None:
    """What a person wants to know first: whether it is the same, and if not, where."""
    shadow = report.shadow
    out.print(_headline(report), style="bold")
    out.print(add_rows(table("what", "is"), _facts(report)))
    if shadow.note:
        out.print(f"nothing is compared: {visible(shadow.note)}", style="red")
    if report.handlers:
        rows = [
            (visible(each.name), f"{each.executions:,}", f"{each.records:,}", f"{each.different:,}",
             f"{each.incomparable:,}")
            for each in report.handlers
        ]  # fmt: skip
        names = ("handler", "executions", "records", "different", "incomparable")
        out.print()
        out.print(add_rows(table(*names, right=names[1:]), rows))
    if report.executions:
        both = (shadow.against_name, shadow.name)
        out.print()
        out.print(add_rows(table("", *both, right=both), _took(report)))
    show_found(out, shadow, report.differences)
    show_found(out, shadow, report.unanswered, "not comparable")
    out.print()
    out.print(_next(report), style="dim")


def show_found(
    out: Console, shadow: Shadow, found: Sequence[Found], title: str = "differences", widest: int = WIDEST
) -> None:
    """Differences, one a line: in which record, in which field, and both values, of ``widest`` letters each."""
    if not found:
        return
    rows = [
        (str(each.execution), visible(each.record or "all"), visible(each.what), visible(each.field),
         _value(each.live, widest), _value(each.candidate, widest))
        for each in found
    ]  # fmt: skip
    names = ("execution", "record", "what", "field", shadow.against_name, shadow.name)
    out.print()
    out.print(add_rows(table(*names, title=title), rows))


def as_json(report: ShadowReport) -> dict[str, Any]:
    """For scripts."""
    shadow = report.shadow
    return {
        "release": shadow.name, "against": shadow.against_name, "open": shadow.closed is None,
        "opened": shadow.opened, "until": shadow.until, "closed": shadow.closed, "why": shadow.closed_why,
        "note": shadow.note, "sample": shadow.sample, "promote_below": shadow.promote_below, "least": shadow.least,
        "executions": report.executions, "waiting": report.waiting, "records": report.records, "same": report.same,
        "different": report.different, "incomparable": report.incomparable, "share": round(report.share, 6),
        "not_recorded": dict(report.skipped), "doubt": report.doubt,
        "live": asdict(report.live), "candidate": asdict(report.candidate),
        "handlers": [asdict(each) for each in report.handlers],
        "only_in_candidate": list(report.only_there), "only_live": list(report.only_live),
        "differences": [asdict(each) for each in report.differences],
        "unanswered": [asdict(each) for each in report.unanswered],
    }  # fmt: skip


def _headline(report: ShadowReport) -> str:
    shadow = report.shadow
    if not report.records:
        return f"{shadow.name} beside {shadow.against_name}: nothing was compared yet"
    if report.share == 0:
        return f"{shadow.name} did the same as {shadow.against_name} with all {report.records:,} records"
    parts = [f"{report.different:,} different"] if report.different else []
    parts += [f"{report.incomparable:,} not comparable"] if report.incomparable else []
    return (
        f"{shadow.name} beside {shadow.against_name}: of {report.records:,} records {' and '.join(parts)} "
        f"({report.share:.2%})"
    )


def _facts(report: ShadowReport) -> list[tuple[str, str]]:
    shadow = report.shadow
    state = "open" if shadow.closed is None else f"closed {day(shadow.closed)}: {visible(shadow.closed_why or '')}"
    until = "" if shadow.until is None or shadow.closed else f", until {day(shadow.until)}"
    lines = [
        ("shadow", f"{state}, since {day(shadow.opened)} by {visible(shadow.by)}{until}"),
        ("compared", f"{report.executions:,} executions, {report.records:,} records; {report.waiting:,} wait"),
        ("same", f"{report.same:,}"),
        ("different", f"{report.different:,}"),
        ("not comparable", f"{report.incomparable:,}"),
    ]
    if any(report.skipped.values()):
        words = {"sample": "left out by the sample", "rate": "too many in a second", "size": "too large"}
        lines.append(("not recorded", ", ".join(f"{n:,} {words[why]}" for why, n in report.skipped.items() if n)))
    if report.only_there:
        lines.append(("not compared", f"only {shadow.name} has {visible(', '.join(report.only_there))}"))
    if report.only_live:
        lines.append(("missing", f"{shadow.name} does not have {visible(', '.join(report.only_live))}"))
    if shadow.promote_below is not None:
        share = f"{shadow.promote_below:.2%} of {shadow.least:,} records or more"
        lines.append(("goes live", f"by itself when at most {share} are not the same"))
    return lines


def _took(report: ShadowReport) -> list[tuple[str, str, str]]:
    live, candidate = report.live, report.candidate
    return [
        ("median", _ms(live.p50), _ms(candidate.p50)),
        ("slowest of 20", _ms(live.p95), _ms(candidate.p95)),
        ("models", f"${live.cost:,.4f}", f"${candidate.cost:,.4f}"),
        ("calls", f"{live.calls:,}", f"{candidate.calls:,}"),
    ]


def _next(report: ShadowReport) -> str:
    if report.shadow.closed is not None:
        return "again: circuit-script deploy --shadow"
    return "one of them: circuit-script shadow show EXECUTION  ·  circuit-script shadow promote  ·  shadow stop"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f} ms"


def _value(value: Any, widest: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = visible(text)
    return text if len(text) <= widest else f"{text[: widest - 1]}…"
