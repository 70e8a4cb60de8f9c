"""US dollars as whole nano-dollars: sums of them are exact."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

NANO = 1_000_000_000  # of them are a dollar
MOST = 10**17  # a hundred million dollars: sums of it still fit into 64 bits


def nanos(dollars: float | str | Decimal) -> int:
    """Dollars as people write them. What is left below a nano-dollar is dropped: a ceiling gets no wider."""
    return int(Decimal(str(dollars)) * NANO)


def nanos_up(dollars: Decimal) -> int:
    """A cost; what is left below a nano-dollar counts as a whole one."""
    return int((dollars * NANO).to_integral_value(ROUND_CEILING))


def dollars(amount: int) -> str:
    """For people: "$1.25", "$0.000042"; at least two digits after the point, and none that says nothing."""
    text = f"{Decimal(amount) / NANO:,.9f}".rstrip("0")
    whole, _, part = text.partition(".")
    return f"${whole}.{part.ljust(2, '0')}"
