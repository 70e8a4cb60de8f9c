"""Circuit Script: governed triggers for AI agents and automations. What an author imports stands here.

Each name is imported when it is first asked for: most processes of the platform need few of them, or none.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

    from circuit_script.errors import BudgetExceeded, CalloutRefused, QuotaExceeded, RequestRefused
    from circuit_script.execution.authoring.calls import send_webhook
    from circuit_script.execution.authoring.context import Context, current_context
    from circuit_script.execution.authoring.database import CircuitDB
    from circuit_script.execution.authoring.endpoints import HTTPProblem, endpoint
    from circuit_script.execution.authoring.governed_model import GovernedModel as GovernedModel
    from circuit_script.execution.authoring.handlers import CircuitTrigger, trigger
    from circuit_script.execution.authoring.jobs import enqueue, queueable, scheduled
    from circuit_script.execution.authoring.log import CircuitLog, log
    from circuit_script.execution.authoring.models import llm as llm
    from circuit_script.execution.authoring.records import Record
    from circuit_script.execution.authoring.scripts import run_script
    from circuit_script.execution.authoring.starting import on_child_start
    from circuit_script.execution.child.running import run
    from circuit_script.execution.decisions import Cancel, Retry
    from circuit_script.execution.retries import Retries
    from circuit_script.governor import LimitExceeded, Limits

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

# Where each name is. `llm` and `GovernedModel` are not in `__all__`, as what they bring along is large, and optional:
# who wants them names them.
_HOMES = {
    "BudgetExceeded": "circuit_script.errors",
    "CalloutRefused": "circuit_script.errors",
    "Cancel": "circuit_script.execution.decisions",
    "CircuitDB": "circuit_script.execution.authoring.database",
    "CircuitLog": "circuit_script.execution.authoring.log",
    "CircuitTrigger": "circuit_script.execution.authoring.handlers",
    "Context": "circuit_script.execution.authoring.context",
    "GovernedModel": "circuit_script.execution.authoring.models",
    "HTTPProblem": "circuit_script.execution.authoring.endpoints",
    "LimitExceeded": "circuit_script.governor",
    "Limits": "circuit_script.governor",
    "QuotaExceeded": "circuit_script.errors",
    "Record": "circuit_script.execution.authoring.records",
    "RequestRefused": "circuit_script.errors",
    "Retries": "circuit_script.execution.retries",
    "Retry": "circuit_script.execution.decisions",
    "current_context": "circuit_script.execution.authoring.context",
    "endpoint": "circuit_script.execution.authoring.endpoints",
    "enqueue": "circuit_script.execution.authoring.jobs",
    "http": "circuit_script.execution.authoring.http_client",
    "llm": "circuit_script.execution.authoring.models",
    "log": "circuit_script.execution.authoring.log",
    "on_child_start": "circuit_script.execution.authoring.starting",
    "queueable": "circuit_script.execution.authoring.jobs",
    "run": "circuit_script.execution.child.running",
    "run_script": "circuit_script.execution.authoring.scripts",
    "scheduled": "circuit_script.execution.authoring.jobs",
    "send_webhook": "circuit_script.execution.authoring.calls",
    "trigger": "circuit_script.execution.authoring.handlers",
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
