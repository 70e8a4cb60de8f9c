"""Tracebacks as an author reads them: from their own code on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAMES = ("detail", "traceback")  # of a log line's fields
INDENT = "    "
_FRAME = re.compile(r'  File "([^"]+)", line \d+')
_OURS = re.compile(
    r"/circuit_script/(execution|wiring)/|/asyncio/|/concurrent/futures/|/(contextlib|threading)\.py$|^<frozen "
)


def taken_out(fields: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The fields of a log line without its traceback, and that."""
    rest = dict(fields)
    found = [rest.pop(name) for name in NAMES if isinstance(fields.get(name), str) and "\n" in fields[name].strip()]
    return rest, "\n".join(found)


def authors_part(trace: str) -> str:
    """A traceback without the frames of the platform and of asyncio that stand above the author's."""
    kept: list[str] = []
    above: list[str] | None = None  # what stands between the heading and the author's first frame
    for line in trace.rstrip().splitlines():
        frame = _FRAME.match(line)
        ours = _OURS.search(frame[1]) if frame else line.startswith("  ")  # the source line below a frame
        if line.startswith("Traceback "):
            kept.append(line)
            above = []
        elif above is not None and ours:
            above.append(line)
        else:
            kept += [line] if frame or above is None else [*above, line]  # all are shown where none is the author's
            above = None
    return "\n".join([*kept, *(above or [])])


def indented(trace: str) -> str:
    """The lines of a traceback, each on a line of its own below what they belong to."""
    return "".join(f"\n{INDENT}{line}" for line in trace.rstrip().splitlines())
