"""Circuit Script: governed triggers for AI agents and automations. What an author imports stands here."""

from circuit_script.errors import RequestRefused
from circuit_script.execution.calls import Response, http, send_webhook
from circuit_script.execution.context import Context, Record, current_context
from circuit_script.execution.database import CircuitDB
from circuit_script.execution.decisions import Cancel, Retry
from circuit_script.execution.endpoints import HTTPProblem, endpoint
from circuit_script.execution.handlers import CircuitTrigger, trigger
from circuit_script.execution.log import CircuitLog, log
from circuit_script.execution.running import run
from circuit_script.governor import LimitExceeded, Limits

__all__ = [
    "Cancel",
    "CircuitDB",
    "CircuitLog",
    "CircuitTrigger",
    "Context",
    "HTTPProblem",
    "LimitExceeded",
    "Limits",
    "Record",
    "RequestRefused",
    "Response",
    "Retry",
    "current_context",
    "endpoint",
    "http",
    "log",
    "run",
    "send_webhook",
    "trigger",
]
