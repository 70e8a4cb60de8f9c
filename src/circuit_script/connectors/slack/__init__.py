"""Slack: messages into channels, changes of them, and reactions.

faults     what its errors mean
connector  posting, and what became of a message of which no answer came
"""

from circuit_script.connectors.slack.connector import URL, Slack, make

__all__ = ["URL", "Slack", "make"]
