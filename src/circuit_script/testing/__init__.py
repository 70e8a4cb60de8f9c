"""CircuitTest: what the author of an app tests handlers with. Its pytest plugin gives each test one, as ``circuit``."""

from circuit_script.testing.circuit_test import CircuitTest
from circuit_script.testing.clock import Clock
from circuit_script.testing.factories import Factory
from circuit_script.testing.marks import test
from circuit_script.testing.runs import EndpointRun, Run

__all__ = ["CircuitTest", "Clock", "EndpointRun", "Factory", "Run", "test"]
