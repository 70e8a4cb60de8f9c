"""The circuit breaker: a host that does not answer is left alone for a while, for each tenant by itself.

It opens after FAILURES in a row, or when half of the last WINDOW callouts failed. It then refuses until its rest is
over, lets one probe through, and closes or rests twice as long by what becomes of it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from circuit_script.errors import CalloutRefused

FAILURES = 5
WINDOW = 20
RATE = 0.5
REST = 5.0  # seconds
LONGEST_REST = 120.0
PROBE = 60.0  # seconds after which a probe that nobody reports on counts as lost
MAX_TENANTS = 1000
MAX_HOSTS = 100  # of one tenant


@dataclass(slots=True)
class _Circuit:
    """What is known of one host, for one tenant. ``recent`` has a bit for each of the last callouts: 1 is a
    failure."""

    row: int = 0
    recent: int = 0
    seen: int = 0
    rest: float = 0.0
    until: float = 0.0  # closed again; 0 is not open
    probing: float = 0.0  # since when; 0 is not at all

    def failed(self, now: float) -> None:
        self.row += 1
        self._note(1)
        often = self.seen >= WINDOW and self.recent.bit_count() >= WINDOW * RATE
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

    def _note(self, bit: int) -> None:
        self.recent = (self.recent << 1 | bit) & ((1 << WINDOW) - 1)
        self.seen = min(WINDOW, self.seen + 1)


class Breakers:
    """The circuits of one worker. Those used longest ago are forgotten, for each tenant apart."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tenants: OrderedDict[str, OrderedDict[str, _Circuit]] = OrderedDict()

    def ask(self, tenant: str, host: str) -> None:
        """May a callout leave now? Who is let through must say how it went, or give up. Raises CalloutRefused."""
        circuit = self._circuit(tenant, host)
        if not circuit.until:
            return
        now = self._clock()
        left = circuit.until - now
        if left <= 0 and (not circuit.probing or now - circuit.probing >= PROBE):
            circuit.probing = now
            return
        wait = left if left > 0 else 1.0  # a probe is on its way
        raise CalloutRefused(
            f"{host} has failed {circuit.row} times in a row. It is tried again in {wait:.1f} s."
            if circuit.row >= FAILURES
            else f"{host} has failed {circuit.recent.bit_count()} of the last {circuit.seen} times. "
            f"It is tried again in {wait:.1f} s.",
            cure="Put the record off: `raise Retry(after=error.retry_after)`.",
            page="circuit-open",
            retry_after=wait,
        )

    def failed(self, tenant: str, host: str) -> None:
        """It did not answer, or said that it cannot."""
        self._circuit(tenant, host).failed(self._clock())

    def succeeded(self, tenant: str, host: str) -> None:
        self._circuit(tenant, host).succeeded()

    def gave_up(self, tenant: str, host: str) -> None:
        """The callout ended for a reason of ours: nothing is known of the host."""
        self._circuit(tenant, host).probing = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._tenants.values()))

    def _circuit(self, tenant: str, host: str) -> _Circuit:
        hosts = self._tenants.get(tenant)
        if hosts is None:
            hosts = self._tenants[tenant] = OrderedDict()
            if len(self._tenants) > MAX_TENANTS:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        circuit = hosts.get(host)
        if circuit is None:
            circuit = hosts[host] = _Circuit()
            if len(hosts) > MAX_HOSTS:
                hosts.popitem(last=False)
        else:
            hosts.move_to_end(host)
        return circuit
