"""Leads: who is hot now and why, and how one lead came to its score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from circuit_script.access import Act
from circuit_script.connectors.leads import DEEPEST, Lead, LeadQuery, Score, grades_of, list_leads, scores_of
from circuit_script.dashboard.asking import Ask, filters, said, whole
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import (
    Column,
    Row,
    bar,
    chip,
    el,
    empty,
    facts,
    head,
    link,
    moment,
    pager,
    panel,
    stat,
    table,
    tabs,
    text_block,
)
from circuit_script.dashboard.reading import reading
from circuit_script.dashboard.words import number, short

PATH = "/leads"
PAGE = 50
BANDS = {"hot": "good", "warm": "warn", "cool": "wait"}
AXES = ("fit", "intent", "timing")


@page(PATH, title="Leads")
async def leads(view: View) -> None:
    at = whole(view, "page", 1000) or 0
    query = LeadQuery(
        view.tenant,
        text=said(view, "text"),
        grade=said(view, "grade"),
        band=said(view, "band"),
        by_score=view.query.get("by") != "time",
        limit=PAGE,
        offset=at * PAGE,
    )
    async with reading(view.tenant) as connection:
        found = await list_leads(connection, query)
        grades = await grades_of(connection, view.tenant)
    head("Leads", "Each by its latest score, with what moved it most.")
    _narrow(view, query, grades)
    if not found.found:
        if query == LeadQuery(view.tenant):
            empty(
                "No lead has a score yet.",
                "What inserts LeadScore records fills this page: the bundled agent does.",
            )
        else:
            empty("No lead fits.", "Ask for less: another grade, or a part of a name.")
        return
    note = f"{number(found.of)} of the latest {number(DEEPEST)} scores" if found.bounded else number(found.of)
    with panel("Leads", note, classes="flush"):
        columns = [
            Column("Score", right=True), Column("Lead"), Column("Grade"), Column("Fit", right=True, minor=True),
            Column("Intent", right=True, minor=True), Column("Timing", right=True, minor=True),
            Column("Why", wide=True, minor=True), Column("Scored", minor=True),
        ]  # fmt: skip
        table(columns, [_row(view, each) for each in found.found], label="Leads")
        more = (at + 1) * PAGE < found.of
        pager(view.here(page=None) if at else "", view.here(page=at + 1) if more else "")


def _narrow(view: View, query: LeadQuery, grades: Sequence[tuple[str, int]]) -> None:
    with tabs("Grade") as tab:
        tab("All", view.here(grade=None, page=None), query.grade is None, number(sum(n for _, n in grades)))
        for grade, n in grades:
            if grade:
                tab(short(grade, 12), view.here(grade=grade, page=None), query.grade == grade, number(n))
    orders = [("", "Hottest first"), ("time", "Latest first")]
    filters(
        view,
        [Ask("text", "Find", "name, e-mail, company, id"), Ask("by", "Order", options=orders)],
        keep=("grade", "band"),
    )


def address_of(view: View, lead: str) -> str:
    """The page of one lead."""
    return view.link(f"{PATH}/{quote(lead, safe='')}")


def _row(view: View, lead: Lead) -> Row:
    score = lead.score

    def total() -> None:
        link(number(score.total), address_of(view, score.lead), "row-link score")

    def name() -> None:
        with el("span", "stacked"):
            el("span", text=_name(view, lead))
            el("small", "muted", score.lead)

    def grade() -> None:
        with el("span", "stacked"):
            chip(short(score.grade, 12) or "–", BANDS.get(score.band, "plain"))
            if score.band:
                el("small", "muted", score.band)

    why = score.reasons[0] if score.reasons else "–"
    return Row([
        total, name, grade, number(score.fit), number(score.intent), number(score.timing), why,
        partial(moment, score.at, view),
    ])  # fmt: skip


def _name(view: View, lead: Lead) -> str:
    return lead.name if view.may(Act.see_payload) else lead.score.lead


@page(PATH + "/{lead:path}", title="Lead")
async def one_lead(view: View) -> None:
    id_ = view.path["lead"]
    async with reading(view.tenant) as connection:
        scores, person = await scores_of(connection, view.tenant, id_) if _can_be(id_) else ([], None)
    if not scores:
        empty("This lead has no score.", "It was never scored for this tenant, or was forgotten.")
        return
    latest = scores[0]
    shown = Lead(latest, person)
    with head(_name(view, shown), f"Lead {id_}"):
        link("Everything that happened", view.record("Contact", id_), "button")
    _figures(latest, scores)
    with el("div", "columns two-one"):
        with el("div", "stack"):
            with panel("Why", "the strongest first"):
                if latest.reasons:
                    with el("ol", "reasons"):
                        for each in latest.reasons:
                            el("li", text=each)
                else:
                    empty("The score gives no reason.")
            _parts(latest)
            _history(view, scores)
        with el("div", "stack"):
            _about(view, latest)
            if person is not None and view.may(Act.see_payload):
                with panel("Contact"):
                    text_block(dict(person), f"contact-{id_[:40]}")


def _can_be(lead: str) -> bool:
    try:
        return 0 < len(lead.encode()) <= 1000 and "\0" not in lead
    except UnicodeEncodeError:
        return False


def _figures(latest: Score, scores: Sequence[Score]) -> None:
    before = scores[1].total if len(scores) > 1 else None
    moved = "" if before is None or latest.total is None else f"{latest.total - before:+g} since the score before"
    with el("div", "stats"):
        stat("Score", number(latest.total), moved or "its first score", BANDS.get(latest.band, ""))
        stat("Grade", latest.grade or "–", latest.band)
        for axis in AXES:
            stat(axis.capitalize(), number(getattr(latest, axis)), "of 100")


def _parts(latest: Score) -> None:
    if not latest.parts:
        return
    most = max(max(abs(points) for points in latest.parts.values()), 1.0)
    with panel("Parts", "points, beside the largest"), el("div", "limit-bars points"):
        for name, points in sorted(latest.parts.items(), key=lambda part: -part[1]):
            bar(name.replace("_", " "), max(points, 0.0), most * 1.0001, f"{points:+.3g}")
        if latest.negative:
            bar("against it", abs(latest.negative), most * 1.0001, f"−{abs(latest.negative):.3g}").classes("bad")


def _history(view: View, scores: Sequence[Score]) -> None:
    with panel("History", f"{number(len(scores))} score{'s' if len(scores) > 1 else ''}", classes="flush"):
        if len(scores) > 2:
            _line([each.total or 0.0 for each in reversed(scores)])
        columns = [
            Column("Scored"), Column("Score", right=True), Column("Grade"), Column("Fit", right=True, minor=True),
            Column("Intent", right=True, minor=True), Column("Timing", right=True, minor=True),
            Column("Why", wide=True, minor=True),
        ]  # fmt: skip
        table(columns, [_past(view, each) for each in scores], label="Scores")


def _past(view: View, each: Score) -> Row:
    figures = [number(each.total), each.grade or "–", *(number(getattr(each, axis)) for axis in AXES)]
    return Row([partial(moment, each.at, view), *figures, each.reasons[0] if each.reasons else "–"])


def _line(values: Sequence[float]) -> None:
    """The scores as a line, the oldest on the left; 0 to 100 unless they go beyond."""
    top = max(100.0, *values)
    step = 100 / (len(values) - 1)
    points = " ".join(f"{place * step:.2f},{40 - 38 * max(value, 0) / top:.2f}" for place, value in enumerate(values))
    with el(
        "svg", "trend", viewBox="0 0 100 41", preserveAspectRatio="none", role="img", aria_label="Scores over time"
    ):
        el("polyline", points=points, fill="none", vector_effect="non-scaling-stroke")


def _about(view: View, latest: Score) -> None:
    with panel("About it"):
        facts([
            ("Scored", partial(moment, latest.at, view)),
            ("Changes next", partial(moment, latest.next_change_at, view)),
            ("Band", latest.band or "–"),
            ("Route", latest.route or "–"),
            ("Profile", latest.profile or "–"),
        ])  # fmt: skip
