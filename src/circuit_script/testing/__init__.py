"""CircuitTest: what the author of an app tests handlers with. Its pytest plugin gives each test one, as ``circuit``.

Each name is imported when it is first asked for: every pytest run of whoever has installed this loads the plugin.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuit_script.testing.circuit_test import CircuitTest
    from circuit_script.testing.clock import Clock
    from circuit_script.testing.factories import Factory
    from circuit_script.testing.marks import test
    from circuit_script.testing.runs import EndpointRun, Run

__all__ = ["CircuitTest", "Clock", "EndpointRun", "Factory", "Run", "test"]

_HOMES = {
    "CircuitTest": "circuit_script.testing.circuit_test",
    "Clock": "circuit_script.testing.clock",
    "EndpointRun": "circuit_script.testing.runs",
    "Factory": "circuit_script.testing.factories",
    "Run": "circuit_script.testing.runs",
    "test": "circuit_script.testing.marks",
}


if not TYPE_CHECKING:  # who checks types, and saw this, would take any misspelt name

    def __getattr__(name: str) -> Any:
        """Import what is first named now, and keep it."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
