"""FIT's tables of a profile's TOML, each to its frozen value."""

from __future__ import annotations

from typing import Any

from circuit_script.agents.virtual_lpr.profile import (
    Authority,
    Company,
    Finance,
    Location,
    Need,
    Point,
    Reachability,
)
from circuit_script.agents.virtual_lpr.section import Section, check_sum, plain

NO_AREA_EVIDENCE = ("credit", "housing", "employment", "insurance")
AUTHORITIES = ("owner", "executive", "self", "director", "family", "manager", "staff")
TERRITORIES = ("open", "adjoining", "taken")


def company(fit: Section) -> Company:
    table = fit.section("company")
    cap = table.number("cap")
    company = Company(
        cap,
        table.number("target", cap),
        table.number("adjacent", cap),
        table.words("target_industries"),
        table.words("adjacent_industries"),
    )
    table.done()
    return company


def location(fit: Section) -> Location:
    table = fit.section("location")
    cap = table.number("cap")
    centers, zips = table.section("zip_centers"), table.section("territory_zips")
    location = Location(
        cap=cap,
        miles=table.steps("miles", cap, rising=True),
        zip_most=table.number("zip_most", cap),
        territory={name: table.number(name, cap) for name in TERRITORIES},
        locations=_points(table, "locations", table.raw("locations")),
        zip_centers={name: centers.pair(name) for name in centers.names()},
        territory_zips={name: _territory(zips, name) for name in zips.names()},
        territory_areas=_areas(table),
    )
    table.done()
    return location


def _points(table: Section, key: str, value: Any) -> tuple[Point, ...]:
    try:
        return tuple((float(latitude), float(longitude)) for latitude, longitude in value)
    except (TypeError, ValueError):
        raise table.wrong(key, "a list of pairs [latitude, longitude]") from None


def _territory(table: Section, key: str) -> str:
    state = table.text(key)
    if state not in TERRITORIES:
        raise table.wrong(key, f"one of {', '.join(TERRITORIES)}")
    return state


def _areas(table: Section) -> tuple[tuple[str, tuple[Point, ...]], ...]:
    found = []
    for number, item in enumerate(table.raw("territory_areas")):
        area = Section(item, f"{table.path}.territory_areas.{number}")
        found.append((_territory(area, "state"), _points(area, "corners", area.raw("corners"))))
        area.done()
    return tuple(found)


def finance(fit: Section) -> Finance:
    table = fit.section("finance")
    cap = table.number("cap")
    vertical, evidence = plain(table.text("vertical")), table.raw("area_evidence")
    if evidence == "by vertical":
        evidence = not any(word in vertical for word in NO_AREA_EVIDENCE)
    if not isinstance(evidence, bool):
        raise table.wrong("area_evidence", 'true, false or "by vertical"')
    finance = Finance(
        cap,
        table.steps("ratio", cap, rising=False),
        table.steps("area", cap, rising=False),
        evidence,
        table.number("requirement"),
        table.number("reference_income"),
    )
    table.done()
    return finance


def authority(fit: Section) -> Authority:
    table = fit.section("authority")
    cap = table.number("cap")
    points = {name: table.number(name, cap) for name in AUTHORITIES}
    titles = []
    for line in table.raw("titles"):
        if not isinstance(line, list) or len(line) != 2 or line[0] not in AUTHORITIES or not isinstance(line[1], list):
            raise table.wrong("titles", "a list of [authority, [words]]")
        titles.append((line[0], tuple(plain(str(word)) for word in line[1])))
    table.done()
    return Authority(cap, points, tuple(titles))


def need(fit: Section) -> Need:
    table = fit.section("need")
    cap = table.number("cap")
    points = {name: table.number(name, cap) for name in ("exact", "related", "mentioned")}
    need = Need(cap, points, table.words("services"), table.words("related_services"))
    table.done()
    return need


def reachability(fit: Section) -> Reachability:
    table = fit.section("reachability")
    cap = table.number("cap")
    phone, email, consent = (table.number(name, cap) for name in ("phone", "email", "consent"))
    check_sum(table.path, "phone + email + consent", (phone, email, consent), cap)
    reachability = Reachability(
        cap,
        phone,
        email,
        table.number("free_mail", email),
        consent,
        table.words("free_domains"),
        table.words("disposable_domains"),
    )
    table.done()
    return reachability
