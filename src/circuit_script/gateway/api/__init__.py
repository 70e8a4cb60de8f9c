"""The API for people and their programs, under ``/api/v1``: one file for each noun."""

from fastapi import APIRouter

from circuit_script.gateway.api import (
    alerts,
    doubts,
    executions,
    judge,
    letters,
    limits,
    logs,
    records,
    releases,
    sessions,
    status,
    traces,
)
from circuit_script.gateway.api.caller import Api

NOUNS = (sessions, status, executions, records, logs, traces, letters, doubts, alerts, limits, judge, releases)

__all__ = ["Api", "api_routers"]


def api_routers() -> list[APIRouter]:
    """A router for each noun. The application that includes them has an `Api` as ``state.api``."""
    return [noun.router for noun in NOUNS]
