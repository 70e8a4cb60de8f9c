"""Circuit Script: governed triggers for AI agents and automations. What an author imports stands here."""

from typing import TYPE_CHECKING, Any

from circuit_script.errors import BudgetExceeded, CalloutRefused, QuotaExceeded, RequestRefused
from circuit_script.execution.calls import send_webhook
from circuit_script.execution.context import Context, Record, current_context
from circuit_script.execution.database import CircuitDB
from circuit_script.execution.decisions import Cancel, Retry
from circuit_script.execution.endpoints import HTTPProblem, endpoint
from circuit_script.execution.handlers import CircuitTrigger, trigger
from circuit_script.execution.jobs import enqueue, queueable, scheduled
from circuit_script.execution.log import CircuitLog, log
from circuit_script.execution.retries import Retries
from circuit_script.execution.running import run
from circuit_script.execution.scripts import run_script
from circuit_script.execution.starting import on_child_start
from circuit_script.governor import LimitExceeded, Limits

if TYPE_CHECKING:
    import httpx

    from circuit_script.execution.governed_model import GovernedModel as GovernedModel
    from circuit_script.execution.models import llm as llm

    http: httpx.AsyncClient

__all__ = [
    "BudgetExceeded",
    "CalloutRefused",
    "Cancel",
    "CircuitDB",
    "CircuitLog",
    "CircuitTrigger",
    "Context",
    "HTTPProblem",
    "LimitExceeded",
    "Limits",
    "QuotaExceeded",
    "Record",
    "RequestRefused",
    "Retries",
    "Retry",
    "current_context",
    "endpoint",
    "enqueue",
    "http",
    "log",
    "on_child_start",
    "queueable",
    "run",
    "run_script",
    "scheduled",
    "send_webhook",
    "trigger",
]

# What brings a library along that not every app needs, by the module that has it. `llm` and `GovernedModel` are not in
# `__all__`, as theirs is large, and optional: who wants them names them.
_LATE = {
    "GovernedModel": "circuit_script.execution.models",
    "http": "circuit_script.execution.http_client",
    "llm": "circuit_script.execution.models",
}


def __getattr__(name: str) -> Any:
    """Import what is first named now, and keep it."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_LATE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LATE})
