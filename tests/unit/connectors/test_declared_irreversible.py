"""What the connectors declare irreversible, held against the names by which handlers allow it."""

from __future__ import annotations

import httpx
import pytest

from circuit_script.config import ConnectorSettings
from circuit_script.connectors.connector import Connector
from circuit_script.connectors.parts import Parts
from circuit_script.connectors.registry import VENDORS, _module, make_registry
from circuit_script.execution.irreversible import CHANGING, CONNECT, HTTP, NAMES
from circuit_script.jobs.connector import JobsConnector

# All operations that can be taken back, each with the reason. A new one is either irreversible or stands here.
REVERSIBLE = {
    "insert": "the record can be deleted",
    "upsert": "the record can be written again",
    "update": "the record can be written again",
    "react": "a reaction can be removed",
    "finalize": "the platform asks for it, and no handler",
}


class Unused:
    async def get(self, tenant: str, name: str) -> str:
        raise AssertionError("nobody is asked")


@pytest.fixture
async def connectors() -> list[Connector]:
    client = httpx.AsyncClient()
    made = [
        _module(name).make(Parts(ConnectorSettings(), client, Unused(), None, None, {}))  # type: ignore[arg-type]
        for name in VENDORS
    ]
    found = [*make_registry({}, client, *made).values(), JobsConnector(None)]  # type: ignore[arg-type]
    await client.aclose()
    return found


async def test_what_is_declared_irreversible_has_a_name_and_what_is_not_has_a_reason(
    connectors: list[Connector],
) -> None:
    declared = {
        (each.name, name): operation.irreversible for each in connectors for name, operation in each.operations.items()
    }
    assert {each.name for each in connectors} == {*VENDORS, "webhook", "jobs"}
    for (connector, name), irreversible in declared.items():
        # Slack's update puts another text before people; a CRM's writes a record.
        reversible = name in REVERSIBLE and (connector, name) != ("slack", "update")
        assert irreversible is not reversible, (connector, name)
    some = {
        (each.name, name)
        for each in connectors
        for name, operation in each.operations.items()
        if operation.irreversible_for
    }
    assert some == {("gohighlevel", "insert"), ("gohighlevel", "upsert")}, "a message that its making sends"
    ours = {*some, ("local", "delete"), *((HTTP, method) for method in (*CHANGING, CONNECT))}
    assert {act for acts in NAMES.values() for act in acts} == {act for act, each in declared.items() if each} | ours
    assert all(f"{connector}.{name}" in NAMES for (connector, name), each in declared.items() if each)
