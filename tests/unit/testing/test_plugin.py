"""The plugin is in every pytest run of whoever has installed the platform."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
import circuit_script.testing.plugin
heavy = {"circuit_script.wiring", "circuit_script.events", "psycopg", "pydantic", "httpx", "structlog"}
print(*sorted(heavy & sys.modules.keys()))
from circuit_script.testing import CircuitTest, Clock, EndpointRun, Factory, Run, test
print(CircuitTest.__name__, test.__module__)
"""


def test_it_brings_nothing_of_the_platform_until_a_test_asks_for_it() -> None:
    ran = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["", "CircuitTest circuit_script.testing.marks"]
