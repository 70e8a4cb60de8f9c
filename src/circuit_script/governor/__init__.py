"""What an execution may use, what it has used, and who says that it is too much."""

from circuit_script.governor.cycles import REPEATS, Cycles
from circuit_script.governor.limits import (
    FRACTIONS,
    LOOP,
    LOOPS,
    MB,
    PER_RECORD,
    REPEATED,
    Crossed,
    LimitExceeded,
    Limits,
    LoopFound,
    Usage,
    amount,
    breach_of,
    limits_of,
)
from circuit_script.governor.meter import Meter

__all__ = [
    "FRACTIONS",
    "LOOP",
    "LOOPS",
    "MB",
    "PER_RECORD",
    "REPEATED",
    "REPEATS",
    "Crossed",
    "Cycles",
    "LimitExceeded",
    "Limits",
    "LoopFound",
    "Meter",
    "Usage",
    "amount",
    "breach_of",
    "limits_of",
]
