"""Settings → the children that run handlers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from circuit_script.config import Settings
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.nursery import Hosting, WebApp
from circuit_script.governor import limits_of


def make_children(settings: Settings, folder: Path | None = None, *, probes: int = -1, python: str = "") -> Pool:
    """The pool of children that the settings ask for, not started; of the app in ``folder``, if it is another.
    ``probes`` and ``python`` are as in `Hosting`."""
    return Pool(
        app_folder=folder or settings.folder,
        app=settings.app,
        size=settings.worker.children,
        on_change=lambda: None,
        limits=limits_of(settings.limits),
        objects=settings.objects,
        express=settings.worker.endpoint_children,
        web=_web_app(settings),
        hosting=replace(_hosting(settings, folder), probes=probes, python=python),
    )


def make_recorded_children(settings: Settings, folder: Path, python: str = "") -> Pool:
    """Half as many, of a recorded release that is beside the live one and answers no requests; not started."""
    return Pool(
        app_folder=folder,
        app=settings.app,
        size=max(1, settings.worker.children // 2),
        on_change=lambda: None,
        limits=limits_of(settings.limits),
        objects=settings.objects,
        express=0,
        hosting=replace(_hosting(settings, folder), python=python),
    )


def _hosting(settings: Settings, folder: Path | None) -> Hosting:
    """How far children are fenced in, and how they come to be. Code in another folder sees no settings either."""
    home = "" if folder is None else str(settings.folder.resolve())
    return Hosting(settings.worker.isolation, settings.worker.start, home)


def _web_app(settings: Settings) -> WebApp | None:
    """The author's own WSGI or ASGI app, if there is one."""
    web = settings.web
    return WebApp(web.app, web.auth, web.deadline) if web.app else None
