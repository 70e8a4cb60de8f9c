"""The gate: how many effects of a group may leave now, and why not.

Pauses that somebody made, circuits of vendors that are down, rates, and room at the target. Nothing of it costs an
effect an attempt: what may not leave is not even read.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from circuit_script.connectors.circuits import Circuits
from circuit_script.connectors.connector import Delivered, Delivery, Later, Operation, Refused, SlowDown, Unknown
from circuit_script.effects.due import Group
from circuit_script.effects.rates import Rates
from circuit_script.execution.outcome import JOBS
from circuit_script.tenants.pauses import Pauses

Place = tuple[str, str]
RATE_TOLD = 5.0  # seconds for which "its rate is used up" is told at least

Paused = Callable[[], Pauses]
_NOTHING = Pauses()


class Wait(NamedTuple):
    """Why effects of a target wait, for who looks: ``kind`` is open or rate, ``seconds`` how long at least."""

    tenant: str
    connector: str
    target: str
    kind: str
    operation: str
    seconds: float
    reason: str


def nothing_paused() -> Pauses:
    return _NOTHING


class Gate:
    """One worker's gate. ``paused`` is what somebody stopped; ``room`` is how many requests may be on their way to one
    target; ``clock`` only rises."""

    def __init__(self, *, rates: Rates, paused: Paused, room: int, clock: Callable[[], float]) -> None:
        self._rates = rates
        self._paused = paused
        self._room = room
        self._clock = clock
        self._circuits: Circuits[Place] = Circuits(often=False)
        self._reasons: dict[tuple[str, Place], str] = {}  # of what opened a circuit
        self._short: dict[Group, Wait] = {}  # groups whose rate is used up
        self.soonest = math.inf  # seconds from the lap's end until one of them has enough again

    def admit(
        self, groups: Sequence[Group], specs: Mapping[Group, Operation | None], flying: Mapping[Place, int]
    ) -> dict[Group, int]:
        """Of each group the most effects that may leave now, without those of which none may."""
        paused = self._paused()
        sharing = Counter(group.place for group in groups)
        most = {}
        for group in groups:
            if paused and _is_paused(paused, group):
                continue
            spec = specs[group]
            bulk = spec.bulk if spec else 1
            room = self.room(spec) - flying.get(group.place, 0)
            number = max(bulk, math.ceil(room / sharing[group.place])) if room > 0 else 0
            if number and spec is not None:
                number = min(number, self._by_circuit(group, number), self._by_rate(group, spec))
            if number > 0:
                most[group] = number
        return most

    def room(self, spec: Operation | None) -> int:
        """How many effects may be on their way to one target, whoever's they are."""
        return self._room * (spec.bulk if spec else 1)

    def leave(self, group: Group, spec: Operation, effects: int) -> int | None:
        """So many effects of a group are about to leave; how many may. None: one of them, as a probe.

        Groups of one circuit are read together, and only the first of them may send the probe.
        """
        circuit = self._circuits.known(group.tenant, group.place)
        if circuit is not None and circuit.is_open:
            if circuit.wait(self._clock()):
                return 0
            circuit.begin(self._clock())
            self.took(group, spec)
            return None
        rate = self._rates.rate_of(group, spec.rate)
        if rate is not None:  # operations may share one
            effects = min(effects, self._rates.left(group, rate) * spec.bulk)
            self._rates.take(group, rate, math.ceil(effects / spec.bulk))
        return effects

    def took(self, group: Group, spec: Operation) -> None:
        """One more request leaves, whatever the rate says."""
        if (rate := self._rates.rate_of(group, spec.rate)) is not None:
            self._rates.take(group, rate)

    def heard(self, group: Group, results: Collection[Delivery], *, probe: bool) -> None:
        """How one request went. What left before the circuit opened and fails now says nothing new."""
        if any(map(_answers, results)):
            if (circuit := self._circuits.known(group.tenant, group.place)) is not None:
                circuit.succeeded()
                self._reasons.pop((group.tenant, group.place), None)
            return
        circuit = self._circuits.of(group.tenant, group.place)
        if probe or not circuit.is_open:
            circuit.failed(self._clock())
            if circuit.is_open:
                down = next((each.reason for each in results if isinstance(each, Unknown | Later)), "")
                self._reasons[group.tenant, group.place] = f"{circuit.row} failures in a row: {down}"

    def waits(self) -> Iterator[Wait]:
        """Open circuits, and rates that are used up."""
        now = self._clock()
        for tenant, place, circuit in self._circuits.opened():
            left = max(circuit.until - now, 1.0)
            yield Wait(tenant, *place, "open", "", left, self._reasons.get((tenant, place), ""))
        yield from self._short.values()

    def rested(self) -> None:
        """A lap is over: which rates are used up is found out anew in the next one."""
        self._short.clear()
        self.soonest = math.inf

    def gave_up(self, group: Group) -> None:
        """A probe ended without a request."""
        if (circuit := self._circuits.known(group.tenant, group.place)) is not None:
            circuit.gave_up()

    def _by_circuit(self, group: Group, number: int) -> int:
        circuit = self._circuits.known(group.tenant, group.place)
        if circuit is None or not circuit.is_open:
            return number
        return 0 if circuit.wait(self._clock()) else 1

    def _by_rate(self, group: Group, spec: Operation) -> int:
        rate = self._rates.rate_of(group, spec.rate)
        if rate is None:
            return self._room * spec.bulk
        left = self._rates.left(group, rate)
        if not left:
            self.soonest = min(self.soonest, self._rates.refilled(group, rate))
            wait = max(self._rates.wait(group, rate), RATE_TOLD)
            reason = f"{rate.calls:g} calls in {rate.seconds:g} s"
            self._short[group] = Wait(
                group.tenant, group.connector, group.target, "rate", group.operation, wait, reason
            )
        return left * spec.bulk


def _is_paused(paused: Pauses, group: Group) -> bool:
    """Jobs go into our own queue, and wait there."""
    if (group.connector, None) in paused.connectors or (group.connector, group.tenant) in paused.connectors:
        return True
    return group.connector != JOBS and (paused.everything or group.tenant in paused.tenants)


def _answers(result: Delivery) -> bool:
    """True when the vendor is there, whatever it says."""
    match result:
        case Delivered() | Refused() | SlowDown():
            return True
        case Later(down=down):
            return not down
        case _:
            return False
