"""What judging costs the road: contacts with names and notes of 300 characters, judged by the balanced preset, beside
the same app in which nothing is judged; in interleaved rounds on one server.

    python -m benchmarks.judgment.road --quick
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop
from rich.console import Console
from rich.progress import Progress

from benchmarks import app, contestants, postgres
from benchmarks.bench import LOCATION, Bench
from benchmarks.contestants import Contestant
from benchmarks.figures import Figure
from benchmarks.processes import cpu_of, free_port

WARM = 500
LENGTH = 300  # characters of a note
SEED = 41
DAYS = ("Monday", "Tuesday", "Friday", "May 3", "June 14")
PLACES = ("Waco", "Leeds", "Graz", "Austin", "Boise")
FIRMS = ("Acme", "Hooli", "Initech", "Stark and Sons")
MONTHS = ("March", "April", "October")
SENTENCES = (
    "Called on {day} and asked for a quote for {n} rooms.",
    "Prefers e-mail over phone, is free after {n} on most days.",
    "Met at the trade fair in {place}; works with {firm} at the moment.",
    "The budget is around {n} thousand, a decision is expected by {day}.",
    "Please send the new brochure and the price list before {day}.",
    "The contract with {firm} ends in {month}; they are looking around.",
    "Asked whether delivery to {place} is possible within {n} days.",
    "Left a voicemail, will try again on {day}.",
    "The kitchen was installed in {month}, with two small complaints.",
    "She would like to speak with the manager about the invoice of {month}.",
    "Has {n} employees in {place} and opens a second office in {month}.",
    "Came from the web form; downloaded the guide on heating.",
    "They need the system to be ready by {day}, or it moves to next year.",
)
# Harmless, and with words that attacks use, too: in one note of RARE.
LIKE_ATTACKS = (
    "Wants to ignore the previous offer and to start with a new one.",
    "Asked us to act as their agent in the sale of a house in {place}.",
)
RARE = 50
ON = """
[judgment]
records = true
"""
OFF = """
[judgment]
preset = "off"
"""


@dataclass(slots=True)
class _Side:
    """One of the two platforms. ``cpu`` is in seconds of all its processes, by round."""

    contestant: Contestant
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


async def measure(quick: bool) -> dict[str, float]:
    """The cost in percent of events a second, and of CPU time; and whether a harmless note was held."""
    rounds, size = (2, 1000) if quick else (15, 8000)
    chance = random.Random(SEED)
    with tempfile.TemporaryDirectory(prefix="circuit-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user must be able to walk through it
        async with postgres.one_postgres(folder / "postgres") as server, AsyncExitStack() as stack:
            (folder / "places").mkdir()
            progress = Progress(console=Console(quiet=True))
            bench = Bench(quick, folder / "places", server, progress.console, progress, progress.add_task(""))
            judged = await stack.enter_async_context(_side(bench, judged=True))
            plain = await stack.enter_async_context(_side(bench, judged=False))
            for side in (judged, plain):
                await bench.road(side.contestant, contacts(bench, chance, WARM))
            for number in range(rounds):
                for side in (judged, plain) if number % 2 else (plain, judged):
                    requests = contacts(bench, chance, size)
                    before = cpu_of(side.contestant.process)
                    side.rates.append((await bench.road(side.contestant, requests)).rate)
                    side.cpu.append(cpu_of(side.contestant.process) - before)
            held = await postgres.fetch(judged.contestant.database, "SELECT count(*) FROM circuit.dead_letters")
    rate = median(mine / its for mine, its in zip(judged.rates, plain.rates, strict=True))
    return {
        "road_cost_pct": round((1 - rate) * 100, 1),
        "road_rate_judged": round(median(judged.rates)),
        "road_rate_plain": round(median(plain.rates)),
        "cpu_us_per_event_judged": round(median(judged.cpu) / size * 1e6),
        "cpu_us_per_event_plain": round(median(plain.cpu) / size * 1e6),
        "held": float(held[0][0]),
    }


def contacts(bench: Bench, chance: random.Random, count: int) -> list[bytes]:
    """Signed requests for contacts, each with a note of its own."""
    made = []
    for _ in range(count):
        contact = bench.vendor.contact(locationId=LOCATION)
        made.append(bench.request({"type": "ContactCreate", **contact, "notes": note(chance)}))
    return made


def note(chance: random.Random) -> str:
    """What a person writes about a contact, LENGTH characters of it."""
    said, odd = "", chance.randrange(RARE) == 0
    while len(said) < LENGTH:
        said += chance.choice(SENTENCES if said or not odd else LIKE_ATTACKS).format(
            day=chance.choice(DAYS),
            n=chance.randrange(2, 90),
            place=chance.choice(PLACES),
            firm=chance.choice(FIRMS),
            month=chance.choice(MONTHS),
        )
        said += " "
    return said[:LENGTH]


async def figures(quick: bool) -> list[Figure]:
    """As the group ``road`` of the benchmark."""
    found = await measure(quick)
    return [
        Figure("road_cost_pct", found["road_cost_pct"], "%", "< 10", "events a second, balanced beside off"),
        Figure("road_rate_judged", found["road_rate_judged"], "events/s", "", "notes of 300 characters, balanced"),
        Figure("road_rate_plain", found["road_rate_plain"], "events/s", "", "the same, nothing judged"),
        Figure("road_held", found["held"], "contacts", "= 0", "harmless contacts that were held"),
    ]


@asynccontextmanager
async def _side(bench: Bench, *, judged: bool) -> AsyncIterator[_Side]:
    place, port = bench.place("judged" if judged else "plain"), free_port()
    key = bench.vendor.public_key
    triggers = app.SCORING.format(batch=200)
    app.scaffold(place, triggers=triggers, port=port, public_key=key)
    with (place / "circuit.toml").open("a") as settings:
        settings.write(ON if judged else OFF)
    async with contestants.ours(place, await bench.database(), key, triggers=triggers, port=port) as ours:
        yield _Side(ours)


if __name__ == "__main__":
    print(uvloop.run(measure("--quick" in sys.argv)))
