"""Circuits: what is known of somebody outside who may be down, for each tenant by itself.

One opens after FAILURES in a row, or when half of the last WINDOW tries failed. Nothing is tried then until its rest is
over; one probe is let through, and it closes or rests twice as long by what becomes of that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

FAILURES = 5
WINDOW = 20
RATE = 0.5
REST = 5.0  # seconds
LONGEST_REST = 120.0
PROBE = 60.0  # seconds after which a probe that nobody reports on counts as lost
MAX_TENANTS = 1000
MAX_PLACES = 100  # of one tenant

Place = TypeVar("Place", bound=Hashable)


@dataclass(slots=True)
class Circuit:
    """What is known of one place, for one tenant. ``recent`` has a bit for each of the last tries: 1 is a failure.
    With ``often`` it opens at half of them, too. Times are of any clock that only rises."""

    often: bool = True
    row: int = 0
    recent: int = 0
    seen: int = 0
    rest: float = 0.0
    until: float = 0.0  # closed again; 0 is not open
    probing: float = 0.0  # since when; 0 is not at all

    @property
    def is_open(self) -> bool:
        return self.until > 0

    def wait(self, now: float) -> float:
        """Seconds until something may be tried; 0 is now. What is tried while it is open must `begin`."""
        if not self.until:
            return 0.0
        left = self.until - now
        if left <= 0:  # else a probe is on its way
            return 1.0 if self.probing and now - self.probing < PROBE else 0.0
        return left

    def begin(self, now: float) -> None:
        """The probe leaves. Who sends it must say how it went, or give up."""
        self.probing = now

    def failed(self, now: float) -> None:
        self.row += 1
        self._note(1)
        often = self.often and self.seen >= WINDOW and self.recent.bit_count() >= WINDOW * RATE
        if self.until or self.row >= FAILURES or often:
            self.rest = min(LONGEST_REST, self.rest * 2 if self.rest else REST)
            self.until = now + self.rest
            self.probing = 0.0

    def succeeded(self) -> None:
        if self.until:  # the probe came through: a new beginning
            self.recent = self.seen = 0
        self._note(0)
        self.row = 0
        self.rest = self.until = self.probing = 0.0

    def gave_up(self) -> None:
        """It ended for a reason of ours: nothing is known."""
        self.probing = 0.0

    def _note(self, bit: int) -> None:
        self.recent = (self.recent << 1 | bit) & ((1 << WINDOW) - 1)
        self.seen = min(WINDOW, self.seen + 1)


class Circuits(Generic[Place]):
    """The circuits of one worker. Those used longest ago are forgotten, for each tenant apart."""

    def __init__(self, *, often: bool = True) -> None:
        self._often = often
        self._tenants: OrderedDict[str, OrderedDict[Place, Circuit]] = OrderedDict()

    def of(self, tenant: str, place: Place) -> Circuit:
        places = self._tenants.get(tenant)
        if places is None:
            places = self._tenants[tenant] = OrderedDict()
            if len(self._tenants) > MAX_TENANTS:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        circuit = places.get(place)
        if circuit is None:
            circuit = places[place] = Circuit(self._often)
            if len(places) > MAX_PLACES:
                places.popitem(last=False)
        else:
            places.move_to_end(place)
        return circuit

    def known(self, tenant: str, place: Place) -> Circuit | None:
        """The circuit, unless nothing was heard of the place yet."""
        places = self._tenants.get(tenant)
        return None if places is None else places.get(place)

    def opened(self) -> Iterator[tuple[str, Place, Circuit]]:
        """Those that are open."""
        for tenant, places in self._tenants.items():
            for place, circuit in places.items():
                if circuit.is_open:
                    yield tenant, place, circuit

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))
