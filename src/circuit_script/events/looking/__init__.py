"""What people look at: how the road does, executions, and everything that ever happened to a record.

Every function reads within ``tenant_reading``: it sees the rows of that tenant and no others.
"""

from circuit_script.events.looking.executions import (
    ExecutionQuery,
    Listed,
    ListPage,
    handler_names,
    list_executions,
)
from circuit_script.events.looking.one import (
    EffectSeen,
    EventSeen,
    ExecutionStory,
    ModelCall,
    effect_payloads,
    payload_of_event,
    read_execution,
)
from circuit_script.events.looking.overview import Minute, Overview, overview
from circuit_script.events.looking.record import (
    Chapter,
    RecordFound,
    RecordStory,
    find_records,
    latest_records,
    story_of_record,
)

__all__ = [
    "Chapter",
    "EffectSeen",
    "EventSeen",
    "ExecutionQuery",
    "ExecutionStory",
    "ListPage",
    "Listed",
    "Minute",
    "ModelCall",
    "Overview",
    "RecordFound",
    "RecordStory",
    "effect_payloads",
    "find_records",
    "handler_names",
    "latest_records",
    "list_executions",
    "overview",
    "payload_of_event",
    "read_execution",
    "story_of_record",
]
