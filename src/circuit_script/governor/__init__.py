"""What an execution may use, what it has used, and who says that it is too much."""

from circuit_script.governor.limits import (
    FRACTIONS,
    MB,
    PER_RECORD,
    LimitExceeded,
    Limits,
    Usage,
    amount,
    limits_of,
)
from circuit_script.governor.meter import Meter

__all__ = ["FRACTIONS", "MB", "PER_RECORD", "LimitExceeded", "Limits", "Meter", "Usage", "amount", "limits_of"]
