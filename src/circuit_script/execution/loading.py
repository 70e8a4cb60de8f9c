"""Imports what the author wrote and makes of it what a child needs: in the zygote, or in each child that is spawned."""

from __future__ import annotations

from pathlib import Path

from circuit_script.execution import checks, child, endpoints, importing
from circuit_script.execution.handlers import registry
from circuit_script.execution.nursery import Assignment

USUAL_APP = "app"  # who has a web app may have no other


def load(assignment: Assignment) -> tuple[child.Apps, bytes]:
    """Import what the author wrote: the apps that answer for its endpoints, and their OpenAPI document.

    FastAPI is imported for endpoints only: most apps have none, and it takes its time. Raises AppError.
    """
    folder, web = Path(assignment.folder), assignment.web
    registry.limits = assignment.limits
    if web is None or assignment.app != USUAL_APP or importing.has_app(folder, USUAL_APP):
        importing.import_app(folder, assignment.app)
    apps: child.Apps = {}
    document = b""
    if endpoints.routes:
        from circuit_script.execution import endpoint_app

        apps, document = endpoint_app.build(registry, folder.name)
    if web is not None:
        from circuit_script.execution.web import load_web

        apps = {**apps, **load_web(folder, web, registry)}
    registry.check(assignment.objects)
    checks.check_awaits(folder)
    return apps, document
