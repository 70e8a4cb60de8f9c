"""Two workers and a gateway as three hosts would have them, a vendor who sends at a steady rate, a receiver of effects;
and what became of all that was acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import postgres
from circuit_script.cli.demo.vendor import Vendor
from circuit_script.db.migrate import migrate
from tests.acceptance.platform import Platform, running, write_app
from tests.acceptance.promises import ENDS, TALLIES, hooks
from tests.acceptance.team import MARKED, WRONG, Team
from tests.acceptance.vendor import Load, Receiver, Sent, contact_stream, make_vendor, receiving

RATE = 500.0  # events in a second
STEPS = 6  # deliveries of one contact


@dataclass(frozen=True)
class Ground:
    """``hosts`` are the workers; ``door`` is the gateway."""

    hosts: tuple[Platform, ...]
    door: Platform
    team: Team
    vendor: Vendor
    receiver: Receiver
    chance: random.Random

    def streams(self, seconds: float) -> list[list[Sent]]:
        """Contacts that are made and change, enough for so long."""
        return [contact_stream(self.vendor, STEPS) for _ in range(int(RATE * seconds) // STEPS)]

    def kill_a_worker(self) -> Platform:
        """Kill -9 of one of them, which starts again; whoever needs it waits until it is ready."""
        victim = self.chance.choice(self.hosts)
        victim.process.kill()
        victim.process.wait()
        return victim.start(wait=False)


@contextlib.contextmanager
def standing(triggers: str = MARKED, *, more: str = "", seed: int = 9) -> Iterator[Ground]:
    """All of it on a fresh PostgreSQL that forgets nothing; gone afterwards. ``more`` are settings of each host."""
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="circuit-bench-")))
        place.chmod(0o755)
        database = stack.enter_context(_database(place))
        vendor, receiver = make_vendor(chance.getrandbits(32)), stack.enter_context(receiving())

        settings = hooks(receiver) + more

        def host(name: str, role: str) -> Platform:
            port = write_app(place / name, triggers, public_key=vendor.public_key, more=settings)
            return stack.enter_context(running(Platform(place / name, port, database, ["--role", role])))

        hosts = (host("one", "worker"), host("two", "worker"))
        door = host("door", "gateway")
        write_app(place / "team", triggers, public_key=vendor.public_key, more=settings)
        yield Ground(hosts, door, Team(place / "team", database), vendor, receiver, chance)


@contextlib.contextmanager
def _database(place: Path) -> Iterator[str]:
    stack = contextlib.AsyncExitStack()
    with asyncio.Runner() as runner:
        url = runner.run(stack.enter_async_context(postgres.one_postgres(place / "postgres")))
        try:
            runner.run(migrate(url))
            yield url
        finally:
            runner.run(stack.aclose())


def became(ground: Ground, load: Load) -> Mapping[str, int]:
    """What the database and the receiver tell of a load that has settled: acknowledged events without success, effect
    or row are ``lost``; rows and effects that are there twice are ``doubled``; ``wrong_release`` are rows that other
    code has written than that of their execution's release."""
    door = ground.door
    ends = {vendor_id: (event, status) for event, vendor_id, _, status, _ in door.rows(ENDS)}
    rows = Counter(event for event, _, _ in door.rows(TALLIES))
    lost = 0
    for sent, _ in load.acknowledged:
        event, status = ends.get(sent.vendor_id, (0, None))
        lost += status != "succeeded" or event not in rows or event not in ground.receiver.keys
    doubled = sum(count - 1 for count in rows.values())
    doubled += sum(len(keys) - 1 for keys in ground.receiver.keys.values())
    return {"lost": lost, "doubled": doubled, "wrong_release": door.value(WRONG)}
