"""Overview: how the road does, now."""

from __future__ import annotations

from circuit_script.dashboard import pieces
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pages.executions import listing
from circuit_script.dashboard.pieces import el
from circuit_script.dashboard.reading import reading
from circuit_script.dashboard.words import ceiling_of, compact, money, number, percent, span
from circuit_script.events.looking import Minute, Overview, overview

EVERY = 5.0  # seconds between two looks
OLD = 60.0  # seconds that an event may wait before it is coloured


@page("/", title="Overview")
async def show(view: View) -> None:
    """The figures of the last hour, what just ended, and what had trouble."""
    pieces.head("Overview", "The last hour, and what needs a look now.")

    async def build() -> None:
        async with reading(view.tenant) as connection:
            seen = await overview(connection)
        _figures(view, seen)
        _chart(view, seen)
        with el("div", "columns wide"):
            with pieces.panel("Trouble", "the latest", classes="flush"):
                if seen.trouble:
                    listing(view, seen.trouble, reasons=True)
                else:
                    pieces.empty("No trouble.", "Executions that failed or broke a limit would stand here.")
            with pieces.panel("Just ended", "the latest", classes="flush"):
                if seen.latest:
                    listing(view, seen.latest)
                else:
                    pieces.empty("Nothing has run yet.", "Send something:", "circuit-script send gohighlevel")

    await view.live(EVERY, build, still=True)


def _figures(view: View, seen: Overview) -> None:
    ran = sum(each.ran for each in seen.minutes)
    trouble = sum(each.trouble for each in seen.minutes)
    with el("div", "stats"):
        pieces.stat("Events a minute", compact(seen.per_minute), "mean of 5 minutes")
        pieces.stat("Run time p95", span(seen.p95), f"half within {span(seen.p50)}" if seen.p50 is not None else "")
        share = seen.errors
        tone = "" if not share else "bad" if share >= 0.05 else "warn"
        note = f"{number(trouble)} of {number(ran)}" if ran else "nothing ran"
        pieces.stat("Errors", percent(share), note, tone, view.link("/executions", status="trouble"))
        pieces.stat("Spent today", money(seen.spent), "on models, UTC")
        age = span(seen.queue_age) if seen.queue_depth else "0 s"
        pieces.stat("Queue age", age, f"{compact(seen.queue_depth)} waiting", "warn" if seen.queue_age >= OLD else "")
        letters, doubt = seen.dead_letters, seen.in_doubt
        pieces.stat("Dead letters", _counted(letters), "open", "bad" if letters else "", view.link("/dead-letters"))
        note = f"{compact(seen.effects_pending)} effects on their way"
        pieces.stat("In doubt", _counted(doubt), note, "warn" if doubt else "", view.link("/in-doubt"))


def _counted(count: int) -> str:
    return number(count) if count <= 10_000 else "10,000+"


def _chart(view: View, seen: Overview) -> None:
    """Events of each minute, and below them where executions had trouble."""
    records = [each.records for each in seen.minutes]
    trouble = [each.trouble for each in seen.minutes]
    top = ceiling_of(max(records, default=0))
    note = f"{number(sum(records))} in the hour" if not seen.partly else "the newest: there are too many to count all"
    with pieces.panel("Events, by the minute", note), el("div", "chart"):
        with el("div", "chart-scale", aria_hidden="true"):
            for value in (top, top / 2, 0):
                el("span", text=compact(value) if value == int(value) else "")
        with el("div", "chart-room"):
            titles = [_told(view, each) for each in seen.minutes]
            pieces.bars(records, top, "Events that were handled, minute by minute", titles=titles)
        el("div", "chart-name bad" if any(trouble) else "chart-name", "trouble")
        pieces.bars(trouble, max([1, *trouble]), "Executions with trouble, minute by minute", "bad", titles)
        with el("div", "chart-foot", aria_hidden="true"):
            for each in [*seen.minutes[::15], seen.minutes[-1]]:
                el("span", text=f"{each.at.astimezone(view.zone):%H:%M}")


def _told(view: View, each: Minute) -> str:
    words = (
        f"{each.at.astimezone(view.zone):%H:%M} · {number(each.records)} events, {number(each.executions)} executions"
    )
    return words + (f", {number(each.trouble)} with trouble" if each.trouble else "")
