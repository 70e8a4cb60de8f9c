"""The American Community Survey: figures of all census tracts of a state, in one request.

The answer is a list of rows; the first names the columns. Figures are texts. What is not to be had is a large negative
number that says why (-666666666: too few samples), or null. (api.census.gov, ACS 5-year)
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from circuit_script.enrichment.asking import Call, Reply, refused, unreadable
from circuit_script.enrichment.leads import key_of
from circuit_script.settings_enrichment import CensusSettings

SHOWN = "the Census data API"
SENTINELS = -100_000_000  # whatever is below is a reason, and no figure
MOST_TRACTS = 30_000  # of a state; California has 9,129

Figures = dict[str, list[float | None]]


def key_of_state(state: str, settings: CensusSettings) -> bytes:
    return key_of("acs5", str(settings.year), state, *settings.variables.values())


def figures_of_state(state: str, settings: CensusSettings, key: str | None) -> Call:
    """``state`` has two digits."""
    params = [
        ("get", ",".join(settings.variables.values())),
        ("for", "tract:*"),
        ("in", f"state:{state}"),
        ("in", "county:*"),
    ]
    if key:
        params.append(("key", key))
    return Call(
        "GET",
        f"{settings.data_url}/{settings.year}/acs/acs5",
        SHOWN,
        settings.timeout,
        params=tuple(params),
        secrets=(key,) if key else (),
    )


def figures(reply: Reply, state: str, settings: CensusSettings) -> Figures:
    """By tract (eleven digits), the variables in their order. Raises NotAnswered."""
    if reply.status == 204:
        return {}
    if reply.status != 200:
        raise refused(SHOWN, reply)
    try:
        head, *rows = msgspec.json.decode(reply.body, type=list[list[Any]])
        columns = [head.index(name) for name in settings.variables.values()]
        codes = [head.index(name) for name in ("state", "county", "tract")]
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise unreadable(SHOWN) from None
    found: Figures = {}
    for row in rows[:MOST_TRACTS]:
        if len(row) != len(head):
            continue
        tract = "".join(code if isinstance(code := row[place], str) else "" for place in codes)
        if len(tract) == 11 and tract.isascii() and tract.isdigit() and tract.startswith(state):
            found[tract] = [figure(row[place]) for place in columns]
    if not found:
        raise unreadable(SHOWN)
    return found


def figure(said: object) -> float | None:
    """A figure as a number, whole where it is; None for what is none."""
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        return None
    try:
        number = float(said)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(number) or number <= SENTINELS:
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number
