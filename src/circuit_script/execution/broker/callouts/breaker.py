"""The circuit breaker: a host that does not answer is left alone for a while, for each tenant by itself.

It opens, rests and probes as `circuit_script.connectors.circuits` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from circuit_script.connectors.circuits import FAILURES, Circuits
from circuit_script.errors import CalloutRefused


class Breakers:
    """The circuits of the hosts that one worker's handlers call."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: Circuits[str] = Circuits()

    def ask(self, tenant: str, host: str) -> None:
        """May a callout leave now? Who is let through must say how it went, or give up. Raises CalloutRefused."""
        circuit = self._circuits.of(tenant, host)
        if not circuit.is_open:
            return
        now = self._clock()
        wait = circuit.wait(now)
        if not wait:
            circuit.begin(now)
            return
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
        self._circuits.of(tenant, host).failed(self._clock())

    def succeeded(self, tenant: str, host: str) -> None:
        self._circuits.of(tenant, host).succeeded()

    def gave_up(self, tenant: str, host: str) -> None:
        """The callout ended for a reason of ours: nothing is known of the host."""
        self._circuits.of(tenant, host).gave_up()

    def __len__(self) -> int:
        return len(self._circuits)
