"""Circuit Script: governed triggers for AI agents and automations. What an author imports stands here.

Each name is imported when it is first asked for: most processes of the platform need few of them, or none.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

    from circuit_script.errors import (
        BudgetExceeded,
        CalloutRefused,
        IrreversibleRefused,
        QueryRefused,
        QuotaExceeded,
        RequestRefused,
        SchemaRefused,
    )
    from circuit_script.execution.authoring.calls import send_webhook
    from circuit_script.execution.authoring.context import Context, current_context
    from circuit_script.execution.authoring.database import CircuitDB
    from circuit_script.execution.authoring.endpoints import HTTPProblem, endpoint
    from circuit_script.execution.authoring.governed_model import GovernedModel as GovernedModel
    from circuit_script.execution.authoring.handlers import CircuitTrigger, trigger
    from circuit_script.execution.authoring.jobs import enqueue, queueable, scheduled
    from circuit_script.execution.authoring.log import CircuitLog, log
    from circuit_script.execution.authoring.messages import (
        make_call,
        react_slack,
        send_email,
        send_slack,
        send_sms,
        update_slack,
    )
    from circuit_script.execution.authoring.models import llm as llm
    from circuit_script.execution.authoring.queries import Q, QueryPlan, Selection
    from circuit_script.execution.authoring.records import Record
    from circuit_script.execution.authoring.scripts import run_script
    from circuit_script.execution.authoring.secret import secret
    from circuit_script.execution.authoring.starting import on_child_start
    from circuit_script.execution.child.running import run
    from circuit_script.execution.decisions import Cancel, Retry
    from circuit_script.execution.retries import Retries
    from circuit_script.governor import LimitExceeded, Limits
    from circuit_script.schemas.model import ObjectSchema as ObjectSchema
    from circuit_script.schemas.model import schema as schema
    from circuit_script.schemas.objects import AppointmentSchema as AppointmentSchema
    from circuit_script.schemas.objects import CampaignSchema as CampaignSchema
    from circuit_script.schemas.objects import ContactSchema as ContactSchema
    from circuit_script.schemas.objects import MessageSchema as MessageSchema
    from circuit_script.schemas.objects import NoteSchema as NoteSchema
    from circuit_script.schemas.objects import OpportunitySchema as OpportunitySchema
    from circuit_script.schemas.objects import ReviewSchema as ReviewSchema
    from circuit_script.schemas.objects import TaskSchema as TaskSchema

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
    "IrreversibleRefused",
    "LimitExceeded",
    "Limits",
    "Q",
    "QueryPlan",
    "QueryRefused",
    "QuotaExceeded",
    "Record",
    "RequestRefused",
    "Retries",
    "Retry",
    "SchemaRefused",
    "Selection",
    "current_context",
    "endpoint",
    "enqueue",
    "http",
    "log",
    "make_call",
    "on_child_start",
    "queueable",
    "react_slack",
    "run",
    "run_script",
    "scheduled",
    "secret",
    "send_email",
    "send_slack",
    "send_sms",
    "send_webhook",
    "trigger",
    "update_slack",
]

# Where each name is. `llm`, `GovernedModel` and the schemas are not in `__all__`, as what they bring along is large:
# who wants them names them.
_HOMES = {
    "AppointmentSchema": "circuit_script.schemas.objects",
    "BudgetExceeded": "circuit_script.errors",
    "CalloutRefused": "circuit_script.errors",
    "CampaignSchema": "circuit_script.schemas.objects",
    "Cancel": "circuit_script.execution.decisions",
    "CircuitDB": "circuit_script.execution.authoring.database",
    "CircuitLog": "circuit_script.execution.authoring.log",
    "CircuitTrigger": "circuit_script.execution.authoring.handlers",
    "ContactSchema": "circuit_script.schemas.objects",
    "Context": "circuit_script.execution.authoring.context",
    "GovernedModel": "circuit_script.execution.authoring.models",
    "HTTPProblem": "circuit_script.execution.authoring.endpoints",
    "IrreversibleRefused": "circuit_script.errors",
    "LimitExceeded": "circuit_script.governor",
    "Limits": "circuit_script.governor",
    "MessageSchema": "circuit_script.schemas.objects",
    "NoteSchema": "circuit_script.schemas.objects",
    "ObjectSchema": "circuit_script.schemas.model",
    "OpportunitySchema": "circuit_script.schemas.objects",
    "Q": "circuit_script.execution.authoring.queries",
    "QueryPlan": "circuit_script.execution.authoring.queries",
    "QueryRefused": "circuit_script.errors",
    "QuotaExceeded": "circuit_script.errors",
    "Record": "circuit_script.execution.authoring.records",
    "RequestRefused": "circuit_script.errors",
    "Retries": "circuit_script.execution.retries",
    "Retry": "circuit_script.execution.decisions",
    "ReviewSchema": "circuit_script.schemas.objects",
    "SchemaRefused": "circuit_script.errors",
    "Selection": "circuit_script.execution.authoring.queries",
    "TaskSchema": "circuit_script.schemas.objects",
    "current_context": "circuit_script.execution.authoring.context",
    "endpoint": "circuit_script.execution.authoring.endpoints",
    "enqueue": "circuit_script.execution.authoring.jobs",
    "http": "circuit_script.execution.authoring.http_client",
    "llm": "circuit_script.execution.authoring.models",
    "log": "circuit_script.execution.authoring.log",
    "make_call": "circuit_script.execution.authoring.messages",
    "on_child_start": "circuit_script.execution.authoring.starting",
    "queueable": "circuit_script.execution.authoring.jobs",
    "react_slack": "circuit_script.execution.authoring.messages",
    "run": "circuit_script.execution.child.running",
    "run_script": "circuit_script.execution.authoring.scripts",
    "scheduled": "circuit_script.execution.authoring.jobs",
    "schema": "circuit_script.schemas.model",
    "secret": "circuit_script.execution.authoring.secret",
    "send_email": "circuit_script.execution.authoring.messages",
    "send_slack": "circuit_script.execution.authoring.messages",
    "send_sms": "circuit_script.execution.authoring.messages",
    "send_webhook": "circuit_script.execution.authoring.calls",
    "trigger": "circuit_script.execution.authoring.handlers",
    "update_slack": "circuit_script.execution.authoring.messages",
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
