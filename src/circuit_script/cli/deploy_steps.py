"""The steps of a deploy as a person sees them: one line each, with its time, and what it does while it does it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from circuit_script.cli.output import BAD, GOOD, WARNING, visible
from circuit_script.errors import CircuitError

WIDTH = 12  # of the steps' names
LEFT = "left"


@dataclass(slots=True)
class Step:
    """One step. ``detail`` is what is said of it once it is over; ``outcome`` is "passed", "refused" or "left"."""

    name: str
    detail: str = ""
    outcome: str = "passed"
    seconds: float = 0.0
    _progress: Progress | None = None

    def now(self, words: str) -> None:
        """What it does in this moment, shown where somebody watches."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], description=escape(f"{self.name:{WIDTH}} {words}"))

    @property
    def told(self) -> dict[str, object]:
        return {"step": self.name, "outcome": self.outcome, "seconds": round(self.seconds, 3), "detail": self.detail}


@dataclass(slots=True)
class Steps:
    """The steps so far."""

    out: Console
    all: list[Step] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """One step: a spinner while it goes on, a line with its time when it is over."""
        step = Step(name)
        self.all.append(step)
        began = time.monotonic()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        watched = self.out.is_terminal
        try:
            with Progress(*columns, console=self.out, transient=True, disable=not watched) as progress:
                progress.add_task(f"{name:{WIDTH}}")
                step._progress = progress if watched else None
                yield step
        except CircuitError as error:
            step.outcome, step.detail = "refused", error.detail or str(error)
            raise
        except BaseException:
            step.outcome = LEFT
            raise
        finally:
            step._progress = None
            step.seconds = time.monotonic() - began
            self._line(step)

    def _line(self, step: Step) -> None:
        mark = {"passed": GOOD, "refused": BAD}.get(step.outcome, WARNING)
        words = step.detail if step.outcome != "refused" else "refused"
        self.out.print(f"{mark} {step.name:{WIDTH}} {escape(visible(words))}  [dim]{step.seconds:.1f} s[/]")

    @property
    def told(self) -> list[dict[str, object]]:
        return [each.told for each in self.all]
