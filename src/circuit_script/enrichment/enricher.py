"""Enrich a batch of leads: each source is asked once for all of them, as far as nobody has asked before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from circuit_script.enrichment import acs, census, people, places
from circuit_script.enrichment.asking import LATER, Ask, NotAnswered, is_passing
from circuit_script.enrichment.cache import Answers, Cache, Load, Loaded, kept
from circuit_script.enrichment.distance import nearest
from circuit_script.enrichment.leads import Lead, Point
from circuit_script.enrichment.people import PeopleFile, PerMinute
from circuit_script.enrichment.store import Kept, Shelf, Wanted
from circuit_script.settings_enrichment import EnrichmentSettings

SOURCES = ("census", "maps", "linkedin")
DAY = 86_400.0  # seconds
GEOCODED = ACS = 365 * DAY
PLACE = PERSON = 30 * DAY
NOTHING = 7 * DAY  # until it is asked again for what a source did not know
AT_ONCE = 4  # calls to a source that is asked for one thing at a time
SLACK = 10.0  # seconds of a claim beside those of its calls
COORDINATES = "no coordinates"
PLACES, PLACE_IDS, PEOPLE = "maps.place", "maps.place_id", "linkedin.person"

Row = dict[str, Any]


@dataclass(slots=True)
class Enriched:
    """A row for each lead: facts as the lead score reads them, what each source said, and ``reasons``. ``whole`` when
    nothing is missing that may come another time; ``asked`` are the things that were asked for outside."""

    rows: list[Row]
    whole: bool = True
    asked: int = 0


@dataclass(slots=True)
class _Batch:
    """One batch on its way. ``where`` are the points that are known of the leads, by their places in the batch."""

    tenant: str
    leads: Sequence[Lead]
    ask: Ask
    done: Enriched
    where: dict[int, Point] = field(default_factory=dict)
    geocoded: dict[int, Kept] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)

    def say(self, place: int, source: str, reason: str) -> None:
        reasons = self.done.rows[place]["reasons"]
        reasons[source] = f"{reasons[source]}; {reason}" if source in reasons else reason
        if is_passing(reason):
            self.done.whole = False


class Enrichment:
    """What all batches of a process share. ``folder`` is where files are that settings name."""

    def __init__(self, settings: EnrichmentSettings, cache: Cache, folder: Path) -> None:
        self._settings = settings
        self._cache = cache
        csv = settings.linkedin.csv
        names = {"": csv} if isinstance(csv, str) else csv
        self._files = {tenant: PeopleFile(folder / name) for tenant, name in names.items() if name}
        self._pace = PerMinute(settings.linkedin.per_minute)

    async def enrich(self, tenant: str, leads: Sequence[Lead], sources: Sequence[str], ask: Ask) -> Enriched:
        """One row for each lead. ``sources`` are of SOURCES. Raises DatabaseUnavailable, and what ``ask`` raises but
        NotAnswered."""
        empty: Row = dict.fromkeys(sources)
        batch = _Batch(tenant, leads, ask, Enriched([{**empty, "reasons": {}} for _ in leads]))
        if "census" in sources or "maps" in sources:
            await self._geocode(batch, own="census" not in sources)
        if "census" in sources:
            await self._census(batch)
        await asyncio.sleep(0)
        if "maps" in sources:
            await self._maps(batch)
        if "linkedin" in sources:
            await self._linkedin(batch)
        return batch.done

    async def _geocode(self, batch: _Batch, *, own: bool) -> None:
        """Where the leads are; with ``own`` those that say it themselves are not looked up."""
        settings = self._settings.census
        batch.where.update((place, lead.where) for place, lead in enumerate(batch.leads) if lead.where is not None)
        askers = {
            place: lead.address
            for place, lead in enumerate(batch.leads)
            if lead.address is not None and not (own and lead.where is not None)
        }
        key_of = {place: address.key for place, address in askers.items()}
        addresses = {key_of[place]: address for place, address in askers.items()}
        await asyncio.sleep(0)  # ten thousand of them take a while: others have their turn

        async def load(keys: Sequence[bytes]) -> AsyncGenerator[Mapping[bytes, Loaded], None]:
            reply = await batch.ask(census.geocode([addresses[key] for key in keys], settings))
            await asyncio.sleep(0)
            found = census.places(reply, len(keys))
            await asyncio.sleep(0)
            missing = f"unavailable: {census.SHOWN} left the address out"
            yield {key: _geocoded(found.get(number)) or missing for number, key in enumerate(keys, 1)}

        shelf = Shelf(f"census.geocode {settings.benchmark} {settings.vintage}")
        answers = await self._fetch(
            batch, shelf, dict.fromkeys(addresses, Wanted()), load, settings.timeout, most=census.ROWS
        )
        for place, lead in enumerate(batch.leads):
            if place not in askers:
                batch.unknown[place] = lead.problem
                continue
            key = key_of[place]
            if (found := answers.kept.get(key)) is None:
                batch.unknown[place] = answers.reasons[key]
            elif isinstance(found.data, dict) and "latitude" in found.data:
                batch.geocoded[place] = found
                batch.where.setdefault(place, (found.data["latitude"], found.data["longitude"]))
            else:
                tie = isinstance(found.data, dict) and found.data.get("match") == "tie"
                batch.unknown[place] = census.TIE if tie else census.NO_MATCH

    async def _census(self, batch: _Batch) -> None:
        states = Counter(str(found.data["state"]) for found in batch.geocoded.values() if found.data["tract"])
        answers = await self._figures(batch, [state for state, _ in states.most_common()])
        settings = self._settings.census
        for place in range(len(batch.leads)):
            if (found := batch.geocoded.get(place)) is None:
                batch.say(place, "census", batch.unknown[place])
                continue
            row = batch.done.rows[place]
            said: Row = {**found.data, **dict.fromkeys(settings.variables), "at": _day(found)}
            if not found.data["tract"]:
                batch.say(place, "census", "no census tract")
            else:
                key = acs.key_of_state(found.data["state"], settings)
                if (state := answers.kept.get(key)) is None:
                    batch.say(place, "census", answers.reasons[key])
                elif (figures := (state.data or {}).get(found.data["tract"])) is None:
                    batch.say(place, "census", "no figures of the census tract")
                else:
                    said.update(zip(settings.variables, figures, strict=True))
            row["census"] = said
            facts = {"latitude": said["latitude"], "longitude": said["longitude"]}
            facts.update((name, said[name]) for name in settings.variables)
            row.update((name, value) for name, value in facts.items() if value is not None and name not in row)

    async def _figures(self, batch: _Batch, states: Sequence[str]) -> Answers:
        settings = self._settings.census
        of_key = {acs.key_of_state(state, settings): state for state in states}

        async def load(keys: Sequence[bytes]) -> AsyncGenerator[Mapping[bytes, Loaded], None]:
            key_of_api = await batch.ask.secret("census.key")
            for key in keys:
                state = of_key[key]
                try:
                    reply = await batch.ask(acs.figures_of_state(state, settings, key_of_api))
                    found = acs.figures(reply, state, settings)
                except NotAnswered as error:
                    yield {key: error.reason}
                else:
                    yield {key: kept(found, ACS)}

        return await self._fetch(
            batch,
            Shelf("census.acs"),
            dict.fromkeys(of_key, Wanted()),
            load,
            settings.timeout * max(1, settings.states),
            most=settings.states,
            too_many=f"{LATER}: a batch asks for the figures of {settings.states} states at most",
        )

    async def _maps(self, batch: _Batch) -> None:
        if self._settings.maps.category:
            await self._categories(batch)
        ours = self._settings.places_of(batch.tenant)
        for place in range(len(batch.leads)):
            row, where = batch.done.rows[place], batch.where.get(place)
            if not ours:
                batch.say(place, "maps", "no locations of your own: [enrichment.locations] in circuit.toml")
                continue
            if where is None:
                batch.say(place, "maps", f"{COORDINATES}: {batch.unknown[place]}")
                continue
            number, far = nearest(where, ours)
            row["maps"] = {**(row["maps"] or {}), "distance_miles": far, "location": number}
            row["distance_miles"] = far

    async def _categories(self, batch: _Batch) -> None:
        settings = self._settings.maps
        keys: dict[int, bytes] = {}
        for place, lead in enumerate(batch.leads):
            if lead.company:
                keys[place] = places.key_of_place(lead)
            else:
                batch.say(place, "maps", "no company, so no category")
        whose = {key: batch.leads[place] for place, key in keys.items()}
        wanted = {key: Wanted(lead.id, lead.email) for key, lead in whose.items()}
        ids = Shelf(PLACE_IDS, batch.tenant)

        async def load(new: Sequence[bytes]) -> AsyncGenerator[Mapping[bytes, Loaded], None]:
            if (secret := await batch.ask.secret("maps.key")) is None:
                raise NotAnswered("not configured: there is no secret maps.key")
            known = await self._cache.known(ids, new)

            async def one(key: bytes) -> Loaded:
                if (place_id := known.get(key)) is not None:
                    said = places.found_again(await batch.ask(places.look_again(place_id, settings, secret)))
                    if said is None:
                        await self._cache.drop(ids, [key])
                        return f"{LATER}: its place is gone, and is looked for again"
                else:
                    said = places.found(await batch.ask(places.search(whose[key], settings, secret)))
                    if said is not None:
                        await self._cache.put(ids, key, kept(said["place_id"], None), wanted[key])
                return kept(said, NOTHING if said is None else PLACE)

            async for done in _each(new, one):
                yield done

        answers = await self._fetch(
            batch,
            Shelf(PLACES, batch.tenant),
            wanted,
            load,
            settings.timeout * (1 + settings.calls // AT_ONCE),
            most=settings.calls,
            too_many=f"{LATER}: a batch asks for {settings.calls} companies at most",
        )
        for place, key in keys.items():
            found = answers.kept.get(key)
            if found is None:
                batch.say(place, "maps", answers.reasons[key])
            elif found.data is None:
                batch.say(place, "maps", f"{places.SHOWN} does not know the company")
            else:
                said = {name: found.data[name] for name in ("place_id", "name", "category", "open")}
                batch.done.rows[place]["maps"] = {**said, "at": _day(found)}
                at = found.data["latitude"], found.data["longitude"]
                if None not in at:
                    batch.where.setdefault(place, at)

    async def _linkedin(self, batch: _Batch) -> None:
        file = self._files.get(batch.tenant) or self._files.get("")
        settings = self._settings.linkedin
        if file is None and not settings.url:
            for place in range(len(batch.leads)):
                batch.say(place, "linkedin", "not configured: [enrichment.linkedin] in circuit.toml")
            return
        left = dict.fromkeys(range(len(batch.leads)), "")
        if file is not None:
            try:
                found = await file.find(list(batch.leads))
            except NotAnswered as error:
                left = dict.fromkeys(left, error.reason)
            else:
                left = {place: each for place, each in enumerate(found) if isinstance(each, str)}
                for place, each in enumerate(found):
                    if isinstance(each, dict):
                        self._is(batch, place, {**each, "from": "csv"})
        if settings.url and left:
            left = await self._ask_linkedin(batch, list(left))
        for place, reason in left.items():
            batch.say(place, "linkedin", reason)

    async def _ask_linkedin(self, batch: _Batch, askers: Sequence[int]) -> dict[int, str]:
        """Those of whom nothing was found, and why."""
        settings = self._settings.linkedin
        reasons, keys = {}, {}
        for place in askers:
            if (key := people.key_of_person(batch.leads[place])) is None:
                reasons[place] = "no e-mail address, and no name with a company"
            else:
                keys[place] = key
        whose = {key: batch.leads[place] for place, key in keys.items()}

        async def load(new: Sequence[bytes]) -> AsyncGenerator[Mapping[bytes, Loaded], None]:
            if (token := await batch.ask.secret("linkedin.token")) is None:
                raise NotAnswered("not configured: there is no secret linkedin.token")

            async def one(key: bytes) -> Loaded:
                if not self._pace.take(batch.tenant):
                    return f"{LATER}: {settings.per_minute} people are asked for in a minute at most"
                said = people.person_of(await batch.ask(people.look_up(whose[key], settings, token)))
                return kept(said, NOTHING if said is None else PERSON)

            async for done in _each(new, one):
                yield done

        answers = await self._fetch(
            batch,
            Shelf(PEOPLE, batch.tenant),
            {key: Wanted(lead.id, lead.email) for key, lead in whose.items()},
            load,
            settings.timeout * (1 + settings.calls // AT_ONCE),
            most=settings.calls,
            too_many=f"{LATER}: a batch asks for {settings.calls} people at most",
        )
        for place, key in keys.items():
            if (found := answers.kept.get(key)) is None:
                reasons[place] = answers.reasons[key]
            elif found.data is None:
                reasons[place] = "not known there"
            else:
                self._is(batch, place, {**found.data, "from": "api", "at": _day(found)})
        return reasons

    def _is(self, batch: _Batch, place: int, person: Row) -> None:
        row = batch.done.rows[place]
        row["linkedin"] = person
        row.update((name, person[name]) for name in ("title", "industry") if person.get(name))

    async def _fetch(
        self,
        batch: _Batch,
        shelf: Shelf,
        wanted: Mapping[bytes, Wanted],
        load: Load,
        seconds: float,
        *,
        most: int,
        too_many: str = "",
    ) -> Answers:
        """``seconds`` are those of the calls, each of which may leave twice."""
        lease = 2 * seconds + SLACK
        said = too_many or f"{LATER}: a batch asks for {most:,} at most"
        answers = await self._cache.fetch(
            shelf, wanted, load, left=batch.ask.left, lease=lease, most=most, too_many=said
        )
        batch.done.asked += answers.asked
        return answers


async def _each(
    keys: Sequence[bytes], one: Callable[[bytes], Awaitable[Loaded]]
) -> AsyncGenerator[Mapping[bytes, Loaded], None]:
    """Ask for one thing after another, some at once. What a source does not answer concerns that thing alone."""

    async def answer(key: bytes) -> tuple[bytes, Loaded]:
        try:
            return key, await one(key)
        except NotAnswered as error:
            return key, error.reason

    for start in range(0, len(keys), AT_ONCE):
        some = await asyncio.gather(*map(answer, keys[start : start + AT_ONCE]), return_exceptions=True)
        yield dict(each for each in some if not isinstance(each, BaseException))  # it may have cost something
        for each in some:
            if isinstance(each, BaseException):
                raise each


def _geocoded(place: census.Place | None) -> Kept | None:
    match place:
        case None:
            return None
        case "no_match" | "tie":
            return kept({"match": place}, NOTHING)
        case _:
            return kept(dict(place), GEOCODED)


def _day(found: Kept) -> str:
    """When it was fetched."""
    return datetime.fromtimestamp(found.at, UTC).date().isoformat()
