"""The author's app, imported as a worker imports it: in a process of its own, without credentials."""

from __future__ import annotations

from circuit_script.config import Settings
from circuit_script.execution.hardening import hide_from_children
from circuit_script.execution.host.pool import Manifest
from circuit_script.execution.host.pool import Pool as Children
from circuit_script.execution.nursery import Hosting
from circuit_script.governor import limits_of


async def import_in_child(settings: Settings) -> Manifest:
    """What the app declares. Raises AppError with file, line and cure when it cannot be loaded."""
    hide_from_children()
    children = Children(
        app_folder=settings.folder,
        app=settings.app,
        size=1,
        on_change=lambda: None,
        limits=limits_of(settings.limits),
        objects=settings.objects,
        hosting=Hosting(settings.worker.isolation, settings.worker.start),
    )
    try:
        return await children.start()
    finally:
        await children.stop()
