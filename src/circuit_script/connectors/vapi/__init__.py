"""Vapi: telephone calls that an assistant makes.

faults     what its errors mean
connector  calling, and what became of a call of which no answer came
"""

from circuit_script.connectors.vapi.connector import URL, Vapi, make

__all__ = ["URL", "Vapi", "make"]
