"""How `circuit-script test` shows a person what the tests told of the app."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from circuit_script.cli.output import BAD, GOOD, add_rows, console, table
from circuit_script.governor import amount

COLUMNS = ("handler", "runs", "records", "coverage", "200 at once", "nearest to its limit")
SLOW = 3  # tests that are named
UNWORTHY = 0.1  # seconds: a test that is faster is not slow


def show(found: Mapping[str, Any], *, partial: bool) -> None:
    """The handlers as a table, the slowest tests, and what refuses a deploy. ``partial`` is as in the report."""
    out = console()
    if found["handlers"]:
        out.print()
        rows = (tuple(_row(name, use, found)) for name, use in found["handlers"].items())
        out.print(add_rows(table(*COLUMNS, right=("runs", "records", "coverage")), rows))
    slow = [each for each in found["slowest"] if each["seconds"] >= UNWORTHY][:SLOW]
    if slow:
        named = ", ".join(f"{each['test'].rpartition('::')[2]} {each['seconds']:.1f} s" for each in slow)
        out.print(Text(f"\nslowest: {named}", "dim"))
    if (total := found["coverage"]["total"]) is not None:
        out.print(f"\ncoverage: {total:g} percent of the app's lines")
    if not partial:
        _show_refusals(out, found)


def _show_refusals(out: Console, found: Mapping[str, Any]) -> None:
    refusals = found["refusals"]
    if not refusals:
        out.print(f"{GOOD} nothing refuses a deploy")
        return
    for each in refusals:
        out.print(Text.assemble(Text.from_markup(BAD), " ", each))
    if found["passed"]:
        out.print(Text("\nAll tests pass, and a deploy would be refused.", "bold"))


def _row(name: str, use: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[object]:
    """One handler: the ones that no test ran stand out."""
    yield name
    yield use["runs"] or "none"
    yield use["records"]
    percent = found["coverage"]["handlers"].get(name)
    yield "" if percent is None else f"{percent:g} %"
    bulk = found["bulk"].get(name)
    yield "" if bulk is None else "yes" if bulk["succeeded"] else "no"
    yield _nearest(name, use, found)


def _nearest(name: str, use: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The two limits of which the largest part was used, first those that are near."""
    near = [each for each in found["limits"] if each["handler"] == name]
    said = [f"{each['limit']} {_of(each['limit'], each['used'], each['ceiling'])} (!)" for each in near]
    parts = {limit: use["usage"].get(limit, 0) / ceiling for limit, ceiling in use["ceilings"].items() if ceiling}
    known = {each["limit"] for each in near}
    others = [limit for limit, part in parts.items() if part and limit not in known]
    most = sorted(others, key=lambda limit: -parts[limit])
    said += [f"{limit} {_of(limit, use['usage'][limit], use['ceilings'][limit])}" for limit in most]
    return ", ".join(said[:2])


def _of(limit: str, used: float, ceiling: float) -> str:
    return f"{amount(limit, used)} of {amount(limit, ceiling)}"
