"""One schedule: which deliveries leave when, and which accidents happen meanwhile. All of it follows from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tests.faults.again import DRY, REAL
from tests.faults.sender import Letter
from tests.faults.story import HANDLERS
from tests.faults.vendor import WAYS

TENANTS = ("ash", "birch", "cedar")
STEPS = 5
ONE, TWO, SUPERVISED = "one worker", "two workers", "supervised"
STAGES = (*[ONE] * 10, *[TWO] * 12, *[SUPERVISED] * 3)  # of each 25 schedules

STALLING = (
    "intake.before", "intake.committed", "lanes.beat", "lanes.taken", "dispatch.read", "run.before", "run.handled",
    "checkpoint.before", "checkpoint.committed", "settle.before", "settle.committed", "courier.before",
    "courier.sent", "courier.told",
)  # fmt: skip
DEADLY = (*STALLING, "intake.answered", "lanes.mark", "lanes.release", "quotas.lease")
OF_REPLAYS = ("replay.before", "replay.put")
# Where the next step may fail by itself; after a read nothing can before its rows are known.
FAILING = (
    "intake.before", "intake.committed", "lanes.beat", "lanes.taken", "run.before", "settle.before",
    "settle.committed", "courier.before", "courier.sent", "courier.told",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One accident, ``at`` seconds after the first delivery and for ``seconds``. ``what`` says where or how."""

    at: float
    kind: str
    what: str
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"at {self.at:.2f} s {self.kind} {self.what}" + (f" for {self.seconds:.2f} s" if self.seconds else "")


@dataclass(frozen=True, slots=True)
class Schedule:
    """``streams`` are the deliveries, one stream a record; ``replay`` is how those of the schedule before are replayed
    meanwhile, "" for not."""

    number: int
    stage: str
    streams: tuple[tuple[Letter, ...], ...]
    faults: tuple[Fault, ...]
    replay: str = ""

    @property
    def size(self) -> int:
        return sum(map(len, self.streams))


def draw(seed: int, number: int, kinds: Collection[str] = ()) -> Schedule:
    """The schedule with this number of a run with this seed, of faults of some ``kinds`` only if any are given."""
    chance = random.Random(f"{seed}/{number}")
    stage = STAGES[number % len(STAGES)]
    records = chance.randint(10, 12)
    streams = tuple(_stream(chance, f"s{seed}-{number}-{place}") for place in range(records))
    faults = sorted((_fault(chance, stage, kinds) for _ in range(chance.randint(1, 5))), key=lambda each: each.at)
    (replay,) = chance.choices(("", REAL, DRY), (16, 3, 1))
    if replay == REAL and (not kinds or "failpoint" in kinds):
        place, action = chance.choice(OF_REPLAYS), chance.choice(("kill", "kill", "fail", "stall:1.50"))
        faults.append(Fault(0.0, "failpoint", f"{place}={action}@{chance.choice((1, 2))}"))
    return Schedule(number, stage, streams, tuple(faults), replay)


def _stream(chance: random.Random, record: str) -> tuple[Letter, ...]:
    tenant = chance.choice(TENANTS)
    letters = []
    rank = 0
    for step in range(STEPS):
        rank += step > 0 and chance.random() > 0.08  # else it leaves together with the one before
        letters.append(
            Letter(
                mark=f"{record}-{step}",
                tenant=tenant,
                record=record,
                rank=rank,
                event="afterUpdate" if step else "afterInsert",
                fails=int(chance.random() < 0.04),
                again=chance.random() < 0.06,
                after=chance.uniform(0, 0.25),
                follows=chance.choice(HANDLERS) if chance.random() < 0.25 else "",
                delay=chance.choice((0.0, 0.0, 0.4)),
            )
        )
    return tuple(letters)


def _fault(chance: random.Random, stage: str, kinds: Collection[str]) -> Fault:
    drawn = [kind for kind, weight in WEIGHTS.items() if not kinds or kind in kinds for _ in range(weight)]
    return MAKERS[chance.choice(drawn)](chance, chance.uniform(0.02, 0.8), stage)


def _kill(chance: random.Random, at: float, stage: str) -> Fault:
    roles = ["gateway", "worker", "zygote", "child", "child"]
    return Fault(at, "kill", chance.choice(["supervisor", *roles] if stage == SUPERVISED else roles))


def _failpoint(chance: random.Random, at: float, stage: str) -> Fault:
    action = chance.choice(("kill", "kill", "stall", "fail"))
    visit = chance.choice((1, 1, 2, 3, 5))
    match action:
        case "kill":
            name, action = chance.choice(DEADLY), "kill"
        case "fail":
            name = chance.choice(FAILING)
        case _:
            name, action = chance.choice(STALLING), f"stall:{chance.uniform(0.1, 1.8):.2f}"
    return Fault(at * 0.5, "failpoint", f"{name}={action}@{visit}")


def _freeze(chance: random.Random, at: float, stage: str) -> Fault:
    return Fault(at, "freeze", chance.choice(("worker", "worker", "gateway", "child")), chance.uniform(0.2, 1.8))


def _database(chance: random.Random, at: float, stage: str) -> Fault:
    return Fault(at, "database", chance.choice(("restart", "terminate", "terminate")))


def _wire(chance: random.Random, at: float, stage: str) -> Fault:
    where, how = chance.choice(("database", "vendor")), chance.choice(("stall", "reset", "cut", "slow"))
    seconds = 0.0 if how == "reset" else chance.uniform(0.1, 1.2)
    return Fault(at, "wire", f"{how} {where}", seconds)


def _clock(chance: random.Random, at: float, stage: str) -> Fault:
    ahead = chance.choice((-1, 1)) * chance.choice((2, 30, 250, 4000, 90_000))
    return Fault(at * 0.5, "clock", f"{ahead:+d}", chance.uniform(0.3, 1.2))


def _disk(chance: random.Random, at: float, stage: str) -> Fault:
    return Fault(at, "disk", chance.choice(("full", "full", "full of WAL")), chance.uniform(0.2, 0.8))


def _vendor(chance: random.Random, at: float, stage: str) -> Fault:
    ways = tuple(each for each in WAYS if each != "does")
    drawn = chance.sample(ways, chance.randint(1, 3))
    moods = " ".join(f"{way}={chance.choice((10, 20, 30))}" for way in drawn)
    return Fault(at * 0.4, "vendor", moods, chance.uniform(0.3, 1.0))


MAKERS: dict[str, Callable[[random.Random, float, str], Fault]] = {
    "kill": _kill,
    "failpoint": _failpoint,
    "freeze": _freeze,
    "database": _database,
    "wire": _wire,
    "clock": _clock,
    "disk": _disk,
    "vendor": _vendor,
}
WEIGHTS = {"kill": 5, "failpoint": 8, "freeze": 2, "database": 2, "wire": 5, "clock": 2, "disk": 1, "vendor": 5}
