"""Reads the stack that a child writes when it is over its limits (the format is that of `faulthandler`)."""

from __future__ import annotations

import re
from pathlib import Path

CURRENT = "Current thread"
FOREIGN = "/site-packages/"

_frame = re.compile(r'^  File "(.+)", line (\d+) in ', re.MULTILINE)


def line_of_stack(stack: str, folder: Path | None) -> str:
    """The innermost line of the app in it, as "triggers/contact.py:12", first of the thread that was interrupted; ""
    where there is none."""
    if folder is None or not stack:
        return ""
    before, _, current = stack.partition(CURRENT)
    inside = f"{folder}/"
    for part in (current.partition("\n\n")[0], before, current):
        for file, line in _frame.findall(part):
            if file.startswith(inside) and FOREIGN not in file:
                return f"{file.removeprefix(inside)}:{line}"
    return ""
