"""Imports what the author wrote and makes of it what a child needs: in the zygote, or in each child that is spawned."""

from __future__ import annotations

import gc
from pathlib import Path

import circuit_script
from circuit_script.execution.authoring import checks, endpoints, importing, probes
from circuit_script.execution.authoring.handlers import registry
from circuit_script.execution.child import child
from circuit_script.execution.nursery import Assignment

USUAL_APP = "app"  # who has a web app may have no other
LARGE = frozenset({"http"})  # of the public API, what only an app that names it pays for
GARBAGE = 50_000  # objects made between two looks for cycles: an import makes many, and hardly a cycle


def load(assignment: Assignment) -> tuple[child.Apps, bytes]:
    """Import what the author wrote: the apps that answer for its endpoints, and their OpenAPI document.

    FastAPI is imported for endpoints only: most apps have none, and it takes its time. Raises AppError.
    """
    gc.set_threshold(GARBAGE, 20, 20)
    for name in circuit_script.__all__:
        if name not in LARGE:
            getattr(circuit_script, name)  # imported here once, and not by each child that is the first to name it
    folder, web = Path(assignment.folder), assignment.web
    registry.limits = assignment.limits
    if assignment.hosting.probes >= 0:
        probes.install(assignment.hosting.probes)
    if web is None or assignment.app != USUAL_APP or importing.has_app(folder, USUAL_APP):
        importing.import_app(folder, assignment.app)
    apps: child.Apps = {}
    document = b""
    if endpoints.routes:
        from circuit_script.execution.web import endpoint_app

        apps, document = endpoint_app.build(registry, folder.name)
    if web is not None:
        from circuit_script.execution.web.app import load_web

        apps = {**apps, **load_web(folder, web, registry)}
    registry.check(assignment.objects)
    checks.check_awaits(folder)
    return apps, document
