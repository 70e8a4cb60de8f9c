"""Twilio: text messages.

faults     what its errors mean      pace    segments of a sender, and replies that go round in circles
connector  sending, and what became of a message of which no answer came
"""

from circuit_script.connectors.twilio.connector import URL, Twilio, make

__all__ = ["URL", "Twilio", "make"]
