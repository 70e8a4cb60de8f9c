"""Spans of time in settings: ``"30s"``, ``"5m"``, ``"4h"``, ``"1d"``."""

from __future__ import annotations

import re

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SPAN = r"^[1-9]\d{0,5}[smhd]$"


def seconds_of(span: str) -> float:
    """``"5m"`` → 300.0. Raises ValueError for what is no span of time."""
    if re.match(SPAN, span) is None:
        raise ValueError(f"{span!r} must be like 30s, 5m, 4h or 1d")
    return int(span[:-1]) * _UNITS[span[-1]]
