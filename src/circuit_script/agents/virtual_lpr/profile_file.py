"""A profile from its TOML file, refused with the key (and the sum) where it is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from math import inf
from pathlib import Path
from typing import Any

from circuit_script.agents.virtual_lpr import fit_tables
from circuit_script.agents.virtual_lpr.profile import (
    CAPS,
    DAY,
    FIT,
    GROUPS,
    HOUR,
    INTENT,
    TIMING,
    Alert,
    Bands,
    Gates,
    Grades,
    Kind,
    Profile,
    ProfileError,
    Timing,
)
from circuit_script.agents.virtual_lpr.section import Section, check_sum, plain

PRESETS = ("local_service", "licensing")
REPLIES = ("stop", "stop_all", "start", "automatic", "not_now", "no", "price", "person", "yes")
FIELDS = (
    *("industry", "latitude", "longitude", "postal_code", "income", "budget", "title", "buying_for", "need"),
    *("notes", "phone", "email", "consent", "due", "trigger", "tags", "dnd", "signals"),
)


@cache
def preset(name: str) -> Profile:
    """One of the shipped profiles."""
    return read_profile(preset_table(name), name)


def load_profile(source: str | Path) -> Profile:
    """A profile from a TOML file, or a preset by its name. Raises ProfileError."""
    if str(source) in PRESETS:
        return preset(str(source))
    path = Path(source)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror}); presets are {', '.join(PRESETS)}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ProfileError(f"{path}: is not valid TOML ({error})") from error
    return read_profile(table, path.name)


def read_profile(table: Mapping[str, Any], where: str) -> Profile:
    """The profile in ``table``; ``where`` begins each error's message."""
    root = Section(_extended(table, where), where)
    root.raw("extends")
    fit, intent, timing = root.section("fit"), root.section("intent"), root.section("timing")
    company, location, finance = fit_tables.company(fit), fit_tables.location(fit), fit_tables.finance(fit)
    authority, need, reachability = fit_tables.authority(fit), fit_tables.need(fit), fit_tables.reachability(fit)
    groups = [intent.section(name) for name in GROUPS]
    fit_caps = (company.cap, location.cap, finance.cap, authority.cap, need.cap, reachability.cap)
    group_caps = tuple(group.number("cap") for group in groups)
    timing_caps = tuple(timing.section(name).number("cap") for name in ("timeline", "recency", "momentum", "trigger"))
    check_sum(where, "company + location + finance (demographic fit)", fit_caps[:3], 20)
    check_sum(where, "authority + need + reachability (profile fit)", fit_caps[3:], 20)
    check_sum(where, " + ".join(GROUPS) + " (intent)", group_caps, CAPS[INTENT])
    check_sum(where, "timeline + recency + momentum + trigger (timing)", timing_caps, CAPS[TIMING])
    kinds = _kinds(groups, root.section("negative"))
    fields = _fields(root.section("fields"))
    profile = Profile(
        name=root.text("name"),
        version=root.text("version"),
        caps=fit_caps + group_caps + timing_caps,
        company=company,
        location=location,
        finance=finance,
        authority=authority,
        need=need,
        reachability=reachability,
        timing=_timing(timing),
        kinds=kinds,
        gates=_gates(root.section("gates")),
        grades=_grades(root.section("grade")),
        bands=_bands(root.section("band")),
        alert=_alert(root.section("alert")),
        fields=fields,
        field_pairs=_turned(fields),
        replies=_replies(root.section("replies")),
        against_fit=frozenset(name for name, kind in kinds.items() if kind.axis == FIT),
    )
    for section in (fit, intent, root):
        section.done()
    return profile


def preset_table(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise ProfileError(f"there is no preset {name!r}; presets are {', '.join(PRESETS)}")
    file = resources.files("circuit_script.agents.virtual_lpr") / "presets" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _extended(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    parent = table.get("extends", "")
    if not isinstance(parent, str):
        raise ProfileError(f"{where}.extends: must be the name of a preset, not {parent!r}")
    base = _extended(preset_table(parent), parent) if parent else {}
    return _laid_over(base, table) | {"extends": parent}


def _laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _laid_over(below, value) if both else value  # type: ignore[arg-type]  # both are mappings
    return merged


def _timing(timing: Section) -> Timing:
    timeline, recency, momentum, trigger = (
        timing.section(name) for name in ("timeline", "recency", "momentum", "trigger")
    )
    hours = recency.steps("hours", recency.number("cap"), rising=True)
    days = trigger.steps("days", trigger.number("cap"), rising=True)
    phrases = timeline.raw("phrases")
    found = Timing(
        timeline=timeline.steps("days", timeline.number("cap"), rising=True),
        lapse=timeline.number("lapse_days"),
        phrases={plain(str(phrase)): float(after) for phrase, after in phrases},
        recency=tuple((int(bound * HOUR), points) for bound, points in hours),
        momentum=momentum.steps("ratio", momentum.number("cap"), rising=False),
        momentum_any=momentum.number("any", momentum.number("cap")),
        recent=int(momentum.number("recent_days") * DAY),
        earlier=int(momentum.number("earlier_days") * DAY),
        trigger=tuple((int(bound * DAY), points) for bound, points in days),
        seasons=_seasons(trigger),
    )
    if not 0 < found.recent < found.earlier:
        raise momentum.wrong("earlier_days", "more than recent_days, and that more than 0")
    for section in (timeline, recency, momentum, trigger, timing):
        section.done()
    return found


def _seasons(trigger: Section) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
    found = []
    for number, item in enumerate(trigger.raw("seasons")):
        season = Section(item, f"{trigger.path}.seasons.{number}")
        found.append((_month_day(season, "from"), _month_day(season, "to")))
        season.done()
    return tuple(found)


def _month_day(table: Section, key: str) -> tuple[int, int]:
    month, _, day = table.text(key).partition("-")
    if not (month.isdecimal() and day.isdecimal() and 1 <= int(month) <= 12 and 1 <= int(day) <= 28):
        raise table.wrong(key, 'a month and a day up to the 28th, as "03-01"')
    return int(month), int(day)


def _kinds(groups: list[Section], negative: Section) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for index, group in enumerate(groups):
        signals = group.section("signals")
        for name in signals.names():
            points, days = signals.pair(name)
            if points < 0 or days <= 0:
                raise signals.wrong(name, "[points from 0, half-life in days above 0]")
            _add(kinds, signals, _kind(name, INTENT, index, points, int(days * DAY)))
        group.done()
    fit = negative.section("fit")
    for name in fit.names():
        _add(kinds, fit, _kind(name, FIT, -1, fit.number(name), None))
    for axis, key in ((INTENT, "intent"), (TIMING, "timing")):
        table = negative.section(key)
        for name in table.names():
            points, days = table.pair(name)
            if points < 0 or days < 0:
                raise table.wrong(name, "[points from 0, half-life in days from 0]")
            _add(kinds, table, _kind(name, axis, -1, points, int(days * DAY) or None))
    negative.done()
    return kinds


def _kind(name: str, axis: int, group: int, points: float, half_life: int | None) -> Kind:
    return Kind(name, axis, group, points, half_life, inf if half_life is None else float(half_life))


def _add(kinds: dict[str, Kind], table: Section, kind: Kind) -> None:
    if kind.name in kinds:
        raise ProfileError(f"{table.path}.{kind.name}: stands in two places")
    kinds[kind.name] = kind


def _gates(table: Section) -> Gates:
    reversed_by, tags = table.section("reversed_by"), table.section("tags")
    names = frozenset(table.texts("names"))
    for section in (reversed_by, tags):
        if unknown := sorted(set(section.names()) - names):
            raise ProfileError(f"{section.path}.{unknown[0]}: is not among the gates' names")
    gates = Gates(
        names,
        table.number("served_miles"),
        {name: frozenset(reversed_by.texts(name)) for name in reversed_by.names()},
        {name: tags.words(name) for name in tags.names()},
    )
    table.done()
    return gates


def _grades(table: Section) -> Grades:
    grades = Grades(*(table.whole(name) for name in ("a", "b", "one", "two")))
    table.done()
    return grades


def _bands(table: Section) -> Bands:
    hot, fit, intent, warm, slack = (table.whole(name) for name in ("hot", "hot_fit", "hot_intent", "warm", "slack"))
    if not slack < warm < hot <= 100:
        raise ProfileError(f"{table.path}: needs slack < warm < hot <= 100, not {slack}, {warm}, {hot}")
    hours = table.number("hand_raise_hours")
    bands = Bands(hot, fit, intent, warm, slack, int(hours * HOUR), table.whole("hand_raise_fit"))
    table.done()
    return bands


def _alert(table: Section) -> Alert:
    alert = Alert(table.text("address"), int(table.number("repeat_days") * DAY), table.text("opening"))
    table.done()
    return alert


def _fields(table: Section) -> dict[str, tuple[str, ...]]:
    fields = {name: table.texts(name) for name in FIELDS}
    table.done()
    return fields


def _turned(fields: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, str], ...]:
    return tuple((fact, name) for fact, names in fields.items() for name in reversed(names))


def _replies(table: Section) -> dict[str, tuple[str, ...]]:
    words: dict[str, tuple[str, ...]] = dict.fromkeys(REPLIES, ())
    for language in table.names():
        section = table.section(language)
        for rule in REPLIES:
            words[rule] += tuple(plain(word) for word in section.texts(rule))
        section.done()
    return words
