"""Figures: what was measured, beside what was promised."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. ``target`` reads ">= 0.85", "< 30", "<= 3" or "= 0"; empty where nothing is promised."""

    name: str
    value: float | None
    unit: str
    target: str = ""
    note: str = ""

    @property
    def held(self) -> bool | None:
        """Whether the target holds; None where there is none or nothing was measured."""
        if self.value is None or not self.target:
            return None
        sign, bound = self.target.split()
        limit = float(bound)
        match sign:
            case ">=":
                return self.value >= limit
            case "<":
                return self.value < limit
            case "<=":
                return self.value <= limit
            case "=":
                return self.value == limit
        raise ValueError(f"target of {self.name}: {self.target!r}")

    def as_json(self) -> dict[str, object]:
        return {"value": self.value, "unit": self.unit, "target": self.target, "note": self.note}


def write(name: str, figures: Iterable[Figure], *, over: bool = False) -> Path:
    """Write ``results/NAME.json``: figure name → value, unit, target, note; ``over`` what stands there of others."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text("utf-8")) if over and path.is_file() else {}
    content = before | {figure.name: figure.as_json() for figure in figures}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def said(found: Mapping[str, Any], figure: str) -> str:
    """What else was found beside a figure, in one line."""
    rest = {name: value for name, value in found.items() if name != figure}
    return "; ".join(f"{name} {json.dumps(value)}" for name, value in rest.items())[:1000]


def table(title: str, figures: Iterable[Figure]) -> Table:
    """The figures for people: green where the promise holds, red where it does not."""
    drawn = Table(title=title, title_justify="left")
    for heading, justify in (("figure", "left"), ("value", "right"), ("unit", "left"), ("target", "right")):
        drawn.add_column(heading, justify=justify)  # type: ignore[arg-type]  # rich wants the literal type
    drawn.add_column("note", overflow="fold")
    for figure in figures:
        colour = {True: "green", False: "red", None: "default"}[figure.held]
        shown = "not measured" if figure.value is None else shorten(figure.value)
        drawn.add_row(figure.name, f"[{colour}]{shown}[/]", figure.unit, figure.target, figure.note)
    return drawn


def shorten(value: float) -> str:
    """Three significant digits below a hundred, whole numbers with separators above."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
