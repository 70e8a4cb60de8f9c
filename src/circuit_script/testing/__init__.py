"""CircuitTest: what the author of an app tests handlers with. Its pytest plugin gives each test one, as ``circuit``.

Each name is imported when it is first asked for: every pytest run of whoever has installed this loads the plugin.
"""

from typing import TYPE_CHECKING

from circuit_script.lazy import names_of

if TYPE_CHECKING:
    from circuit_script.testing.circuit_test import CircuitTest
    from circuit_script.testing.clock import Clock
    from circuit_script.testing.factories import Factory
    from circuit_script.testing.marks import test
    from circuit_script.testing.runs import EndpointRun, Run

__all__ = ["CircuitTest", "Clock", "EndpointRun", "Factory", "Run", "test"]

_HOMES = {
    "CircuitTest": "circuit_test",
    "Clock": "clock",
    "EndpointRun": "runs",
    "Factory": "factories",
    "Run": "runs",
    "test": "marks",
}

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
