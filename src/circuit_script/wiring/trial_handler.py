"""Which handler is meant, and which of its routes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from circuit_script.errors import TrialRefused
from circuit_script.execution.outcome import HandlerSpec


def named(handlers: Sequence[HandlerSpec], name: str) -> HandlerSpec:
    """The handler of this name, or whose name ends so (``score_new_leads``). Raises TrialRefused."""
    known = {spec.name: spec for spec in handlers}
    wanted = name.strip()
    if wanted in known:
        return known[wanted]
    ends = [spec for spec in handlers if spec.name.lower().endswith(f".{wanted.lower()}")]
    ends = ends or [spec for spec in handlers if spec.name.lower() == wanted.lower()]
    if len(ends) == 1:
        return ends[0]
    if ends:
        names = ", ".join(spec.name for spec in ends)
        raise TrialRefused(f"Several handlers end in {name!r}: {names}.", cure="Give one whole name.")
    last = {spec.name.rpartition(".")[2]: spec.name for spec in handlers} | {each: each for each in known}
    near = get_close_matches(wanted, last, n=1, cutoff=0.5)
    listed = ", ".join(known) or "none: the app declares no handler"
    cure = f"Did you mean {last[near[0]]!r}?" if near else f"There are {listed}."
    raise TrialRefused(f"There is no handler {name!r}.", cure=cure)


def route_of(spec: HandlerSpec, object_: str | None, event: str | None) -> tuple[str, str]:
    """The route that is meant. Raises TrialRefused unless there is exactly one."""
    fitting = [route for route in spec.routes if object_ in (None, route[0]) and event in (None, route[1])]
    if len(fitting) == 1:
        return fitting[0]
    routes = ", ".join(".".join(route) for route in spec.routes)
    if not fitting:
        wanted = ".".join(each for each in (object_, event) if each)
        raise TrialRefused(f"{spec.name} is not called for {wanted}.", cure=f"It is called for {routes}.")
    raise TrialRefused(f"{spec.name} is called for {routes}.", cure="Say which: give object and event.")
