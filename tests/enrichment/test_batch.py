"""Batches of leads, through the broker of an execution, against sources on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from circuit_script.agents.virtual_lpr import VirtualLPR
from circuit_script.clock import uuid7
from circuit_script.db.pool import tenant_reading
from circuit_script.enrichment.store import Shelf, Store
from circuit_script.erasure import Person, forget
from circuit_script.errors import QuotaExceeded, RequestRefused
from circuit_script.execution.broker.callouts.breaker import Breakers
from tests.enrichment.ground import Ground, Journal, Names, ask, lead, settings_of
from tests.enrichment.sources import CENSUS_KEY, KEY, Sources, income_of, tract_of

CSV = "Email,First Name,Last Name,Job Title,Company,Industry,Company Size\n"


def listed(folder: Path, numbers: range) -> None:
    rows = (f"lead{n}@example.com,Ann,Lee {n},Director,Little Stars {n},Education,11-50\n" for n in numbers)
    (folder / "leads.csv").write_text(CSV + "".join(rows))


async def test_a_hundred_new_leads_cost_three_calls_at_most_and_none_the_second_time(
    ground: Ground, sources: Sources, tmp_path: Path
) -> None:
    listed(tmp_path, range(50))
    ground.use(settings_of(sources.url, linkedin={"csv": "leads.csv"}))
    leads = [lead(n, "TX" if n % 2 else "OK") for n in range(100)]

    rows = await ground.enrich(leads, "census", "maps", "linkedin")

    assert sources.heard == {"geocoder": 1, "acs": 2}
    assert ground.broker.usage.callouts == sources.calls == 3
    assert sources.refused == []
    assert len(sources.rows) == 100
    for number, row in enumerate(rows):
        tract = tract_of(f"{number} MAIN ST")
        income = None if tract == 9 else income_of(tract)
        assert row["census"]["area_median_income"] == row.get("area_median_income") == income
        assert row["census"]["tract"] == f"{'48' if number % 2 else '40'}001{tract:06}"
        assert row["census"]["match"] == "exact"
        assert (row["latitude"], row["longitude"]) == (31.5493, -97.1467)
        assert row["maps"] == {"distance_miles": 0.0, "location": 1}
        assert row["distance_miles"] == 0.0
        if number < 50:
            assert (row["title"], row["industry"]) == ("Director", "Education")
            assert row["linkedin"]["size"] == "11-50"
            assert row["reasons"] == {}
        else:
            assert row["linkedin"] is None
            assert row["reasons"] == {"linkedin": "not listed"}

    again = await ground.enrich(leads, "census", "maps", "linkedin")
    assert again == rows
    ground.use(settings_of(sources.url, linkedin={"csv": "leads.csv"}))  # another worker, which remembers nothing
    assert await ground.enrich(leads, "census", "maps", "linkedin", tenant="other") == rows
    assert sources.calls == 3
    assert ground.broker.usage.callouts == 0


async def test_the_lead_score_takes_what_was_found(ground: Ground) -> None:
    leads = [lead(n) for n in range(3)]
    found = await ground.enrich(leads, "census", "maps")
    now = time.time()
    bare = VirtualLPR.score(leads, now=now, profile="local_service")
    assert len(VirtualLPR.score(leads, found, now=now, profile="local_service")) == len(bare) == 3
    one = VirtualLPR.calculate(leads[0], found[0], now=now, profile="local_service")
    assert one == VirtualLPR.calculate(
        {**leads[0], "distance_miles": 0.0, "latitude": 31.5493, "longitude": -97.1467,
         "area_median_income": found[0].get("area_median_income")}, now=now, profile="local_service")  # fmt: skip
    assert one.total > VirtualLPR.calculate(leads[0], now=now, profile="local_service").total


async def test_each_record_says_why_something_is_missing_and_none_fails_the_rest(ground: Ground) -> None:
    records: list[Any] = [
        lead(1),
        lead(2, address1="2 Nowhere Rd"),
        lead(3, address1="3 Twice Ave"),
        {"id": "c4", "email": "x@example.com"},
        lead(5, country="Germany"),
        None,
        lead(6, address1="6 About St"),
        {"id": "c7", "address1": "7 Main St"},
        {"id": "c8", "latitude": 32.7767, "longitude": "-96.7970"},
        "no record at all",
        {"id": "c9", "address1": ["7 Main St"], "city": {"a": 1}, "latitude": float("nan"), "longitude": 1e400},
    ]
    rows = await ground.enrich(records, "census", "maps")

    assert [row["reasons"].get("census") for row in rows] == [
        None,
        "no match: the geocoder does not know the address",
        "several matches: the address is ambiguous",
        "no address",
        "not in the United States",
        "no record",
        None,
        "no whole address: a street needs a ZIP code, or city and state",
        "no address",
        "no record",
        "no address",
    ]
    assert [row["census"] is not None for row in rows] == [n in (0, 6) for n in range(len(rows))]
    assert rows[6]["census"]["match"] == "approximate"
    assert rows[8]["maps"] == {"distance_miles": 0.0, "location": 0}
    assert rows[3]["reasons"]["maps"] == "no coordinates: no address"


async def test_an_address_is_asked_for_once_however_it_is_written(ground: Ground, sources: Sources) -> None:
    spellings = ["1 Main St", "1  MAIN ST.", "1 main st", " 1 Main St\t"]
    rows = await ground.enrich([lead(1, address1=each, postalCode="76701-1234") for each in spellings], "census")
    assert len(sources.rows) == 1
    assert len({row["census"]["tract"] for row in rows}) == 1


async def test_maps_alone_asks_for_no_figures(ground: Ground, sources: Sources) -> None:
    rows = await ground.enrich([lead(1), {"id": "x", "lat": 31.5493, "lng": -97.1467}], "maps")
    assert [row["distance_miles"] for row in rows] == [0.0, 0.0]
    assert sources.heard == {"geocoder": 1}


async def test_states_over_the_bound_come_with_a_later_batch(ground: Ground, sources: Sources) -> None:
    leads = [lead(n, state) for n, state in enumerate(["TX", "TX", "TX", "OK", "OK", "LA", "NM"])]
    rows = await ground.enrich(leads, "census")
    reasons = [row["reasons"].get("census") for row in rows]
    assert reasons == [None] * 5 + ["later: a batch asks for the figures of 2 states at most"] * 2
    assert rows[5]["census"]["tract"].startswith("22001")
    assert rows[5]["census"]["area_median_income"] is None
    assert sources.heard == {"geocoder": 1, "acs": 2}

    rows = await ground.enrich(leads, "census")
    assert all(not row["reasons"] for row in rows)
    assert sources.heard == {"geocoder": 1, "acs": 4}
    await ground.enrich([lead(n, state) for n, state in enumerate(["LA", "NM"], 100)], "census")
    assert sources.heard == {"geocoder": 2, "acs": 4}


async def test_the_key_of_the_census_is_sent_and_seen_nowhere(ground: Ground, sources: Sources) -> None:
    parts = replace(ground.parts, secrets=Names(census_key=CENSUS_KEY))
    await ground.enrich([lead(1)], "census", parts=parts)
    assert sources.refused == []
    assert CENSUS_KEY not in str([mark.row() for mark in ground.recorder.marks])
    parts = replace(ground.parts, secrets=Names(census_key="a wrong one"))
    rows = await ground.enrich([lead(1, "OK")], "census", parts=parts)
    assert rows[0]["reasons"] == {"census": "unavailable: the Census data API answered HTTP 400"}


async def test_a_source_that_is_down_gives_reasons_and_is_asked_again_the_next_time(
    ground: Ground, sources: Sources
) -> None:
    sources.fail("geocoder", 503, None)
    rows = await ground.enrich([lead(1), {"id": "x"}], "census", "maps")
    assert rows[0]["reasons"]["census"].startswith("unavailable: the Census geocoder")
    assert rows[1]["reasons"]["census"] == "no address"
    assert sources.heard == {"geocoder": 2}
    assert ground.broker.usage.callouts == 2

    rows = await ground.enrich([lead(1)], "census")
    assert rows[0]["reasons"] == {}


@pytest.mark.parametrize("fault", [500, 503, None])
async def test_a_failure_is_tried_once_more(ground: Ground, sources: Sources, fault: int | None) -> None:
    sources.fail("acs", fault)
    rows = await ground.enrich([lead(1)], "census")
    assert rows[0]["reasons"] == {}
    assert sources.heard == {"geocoder": 1, "acs": 2}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (429, "later: the Census geocoder takes no more requests now"),
        (302, "unavailable: the Census geocoder answered HTTP 302"),
        (400, "unavailable: the Census geocoder answered HTTP 400"),
        (b"<html>maintenance</html>", "unavailable: the answer of the Census geocoder cannot be read"),
        (b"", "unavailable: the answer of the Census geocoder cannot be read"),
        (b"\x00\xff\xfe,,,\n" * 50, "unavailable: the answer of the Census geocoder cannot be read"),
        (b'"1","x","Match","Exact","x","', "unavailable: the answer of the Census geocoder cannot be read"),
        (b'"1","x","Match","Exact","x","nan,inf","1","L","48","001","000001","1"\n',
         "unavailable: the answer of the Census geocoder cannot be read"),
        (b'"' + b"x" * 200_000 + b'"\n', "unavailable: the answer of the Census geocoder cannot be read"),
        (b'"2","x","Match","Exact","x","-97.1,31.5","1","L","48","001","000001","1"\n',
         "unavailable: the answer of the Census geocoder cannot be read"),
    ],
)  # fmt: skip
async def test_hostile_answers_of_the_geocoder_are_reasons(
    ground: Ground, sources: Sources, fault: int | bytes, reason: str
) -> None:
    sources.fail("geocoder", fault)
    (row,) = await ground.enrich([lead(1)], "census")
    assert row["census"] is None
    assert row["reasons"] == {"census": reason}
    (row,) = await ground.enrich([lead(1)], "census")
    assert row["reasons"] == {}, "nothing of that was kept"


async def test_rows_that_the_geocoder_leaves_out_doubles_or_makes_up_concern_nobody_else(
    ground: Ground, sources: Sources
) -> None:
    def spoil(body: bytes) -> bytes:
        lines = [line for line in body.splitlines(True) if not line.startswith(b'"2"')]
        again = b'"1","x","Match","Exact","x","0.5,0.5","1","L","48","001","000001","1"\r\n'
        return b"".join([b'"99","x","Tie"\r\n', b"\r\n", b'"x"\r\n', *lines, again])

    sources.spoil = spoil
    rows = await ground.enrich([lead(1), lead(2), lead(3)], "census")
    assert [row["reasons"].get("census") for row in rows] == [
        None, "unavailable: the Census geocoder left the address out", None,
    ]  # fmt: skip
    assert rows[0]["latitude"] == 31.5493


@pytest.mark.parametrize(
    "said",
    [b"[]", b"null", b"{}", b"[" * 100_000, b'[["B19013_001E","state","county","tract"]]', b"not json", b"[[1],[2]]",
     b'[["B19013_001E","state","county","tract"],["1e999","48","001","00000x"],[null,"48"],["5","06","001","000001"]]'],
)  # fmt: skip
async def test_hostile_figures_are_reasons(ground: Ground, sources: Sources, said: bytes) -> None:
    sources.fail("acs", said)
    (row,) = await ground.enrich([lead(1)], "census")
    assert row["census"]["area_median_income"] is None
    assert row["census"]["tract"]
    assert row["reasons"] == {"census": "unavailable: the answer of the Census data API cannot be read"}


async def test_an_answer_over_the_bound_is_a_reason_and_ends_no_execution(ground: Ground, sources: Sources) -> None:
    sources.fail("geocoder", b"x" * (17 * 1024 * 1024))
    (row,) = await ground.enrich([lead(1)], "census")
    assert row["reasons"] == {"census": "unavailable: the answer of the Census geocoder is too large"}
    assert (await ask(ground.broker, [lead(1)]))[0]["reasons"] == {}


async def test_ten_thousand_leads_are_one_call_and_more_are_refused(ground: Ground, sources: Sources) -> None:
    leads = [lead(n) for n in range(10_000)]
    rows = await ground.enrich(leads, "census", callout_bytes=1000)
    assert len(sources.rows) == 10_000
    assert sources.heard == {"geocoder": 1, "acs": 1}
    assert sum(row["census"] is not None for row in rows) == 10_000
    assert await ground.enrich(leads, "census") == rows
    assert sources.calls == 2
    with pytest.raises(RequestRefused, match="10,001 records cannot be enriched at once"):
        await ground.enrich([*leads, lead(1)], "census")


async def test_what_is_no_source_is_refused(ground: Ground) -> None:
    with pytest.raises(RequestRefused, match="there is no source 'crystal ball'"):
        await ground.enrich([lead(1)], "crystal ball")


async def test_companies_have_categories_within_the_bound_and_places_are_found_again_by_their_ids(
    ground: Ground, sources: Sources
) -> None:
    ground.use(settings_of(sources.url, maps={"category": True, "calls": 3}))
    leads = [lead(n, companyName=f"Little Stars {n}") for n in range(4)]
    leads += [lead(8), lead(9, companyName="Nobody Inc")]

    rows = await ground.enrich(leads, "census", "maps")
    assert sources.heard["places"] == 3
    assert set(sources.searched) == {f"Little Stars {n}, {n} MAIN ST, WACO, TX 76701" for n in range(3)}
    maps = rows[0]["maps"]
    assert (maps["category"], maps["name"], maps["open"]) == ("preschool", "Little Stars", True)
    assert maps["distance_miles"] == 0
    assert rows[3]["maps"] == {"distance_miles": 0.0, "location": 1}
    assert rows[3]["reasons"] == {"maps": "later: a batch asks for 3 companies at most"}
    assert rows[4]["reasons"] == {"maps": "no company, so no category"}
    rows = await ground.enrich(leads, "maps")
    assert rows[5]["reasons"] == {"maps": "Google Places does not know the company"}
    assert sources.heard["places"] == 5
    await ground.enrich(leads, "maps")
    assert sources.heard["places"] == 5

    async with ground.pool.connection() as connection:  # thirty days later
        await connection.execute(
            "UPDATE circuit.enrichments SET expires_at = now() - interval '1 s' WHERE source = 'maps.place'"
        )
    (place,) = await ground.rows(
        "SELECT data ->> 'place_id' FROM circuit.enrichments WHERE source = 'maps.place' AND records = '{c0}'"
    )
    sources.gone.add(place)
    rows = await ground.enrich(leads[:2], "maps")
    assert rows[1]["maps"]["category"] == "preschool"
    assert rows[0]["reasons"] == {"maps": "later: its place is gone, and is looked for again"}
    assert len(sources.searched) == 5
    rows = await ground.enrich(leads[:2], "maps")
    assert rows[0]["maps"]["category"] == "preschool"
    assert len(sources.searched) == 6
    assert sources.refused == ["NOT_FOUND"]


async def test_without_a_key_there_are_distances_only_and_a_wrong_one_is_told(ground: Ground, sources: Sources) -> None:
    ground.use(settings_of(sources.url, maps={"category": True}))
    leads = [lead(1, companyName="Little Stars")]
    (row,) = await ground.enrich(leads, "maps", parts=replace(ground.parts, secrets=None))
    assert row["maps"] == {"distance_miles": 0.0, "location": 1}
    assert row["reasons"] == {"maps": "not configured: there is no secret maps.key"}
    assert sources.heard == {"geocoder": 1}
    (row,) = await ground.enrich(leads, "maps", parts=replace(ground.parts, secrets=Names(maps_key="wrong")))
    assert row["reasons"] == {"maps": "unavailable: Google Places does not accept maps.key (HTTP 403)"}


async def test_an_answer_that_tells_our_key_does_not_tell_it_to_the_handler(ground: Ground, sources: Sources) -> None:
    ground.use(settings_of(sources.url, maps={"category": True}))
    place = b'{"places":[{"id":"abcdef","displayName":{"text":"key %s"},"primaryType":"%s"}]}'
    sources.fail("places", place % (KEY.encode(), KEY.encode()))
    rows = await ground.enrich([lead(1, companyName="Evil")], "maps")
    assert KEY not in str(rows)
    assert rows[0]["maps"]["place_id"] == "abcdef"
    assert KEY not in str(await ground.rows("SELECT data::text FROM circuit.enrichments"))


@pytest.mark.parametrize(
    "said",
    [b"[]", b"{", b'{"places": 7}', b'{"places": [null]}', b'{"places": [{"id": "../../x"}]}', b"[" * 100_000,
     b'{"places": [{"id": 1}]}'],
)  # fmt: skip
async def test_hostile_places_are_reasons(ground: Ground, sources: Sources, said: bytes) -> None:
    ground.use(settings_of(sources.url, maps={"category": True}))
    sources.fail("places", said)
    (row,) = await ground.enrich([lead(1, companyName="Evil")], "maps")
    assert row["reasons"] == {"maps": "unavailable: the answer of Google Places cannot be read"}


async def test_people_come_of_the_file_first_and_then_of_the_api_within_its_bounds(
    ground: Ground, sources: Sources, tmp_path: Path
) -> None:
    listed(tmp_path, range(2))
    api = {"csv": "leads.csv", "url": f"{sources.url}/people", "version": "202601", "calls": 3, "per_minute": 4}
    ground.use(settings_of(sources.url, linkedin=api))
    sources.people["lead2@example.com"] = {"title": "Owner\n\x00", "company": "Stars", "size": 7, "industry": ["x"]}
    sources.people["Ann Lee, Little Stars"] = {"title": "CEO"}
    leads = [lead(n) for n in range(6)]
    leads.append({"id": "p", "firstName": "Ann", "lastName": "Lee", "companyName": "Little Stars"})

    rows = await ground.enrich(leads, "linkedin")
    assert sources.heard == {"linkedin": 3}
    assert [row["linkedin"] and row["linkedin"]["from"] for row in rows[:3]] == ["csv", "csv", "api"]
    assert rows[2]["linkedin"] | {"at": ""} == {
        "title": "Owner", "company": "Stars", "industry": None, "size": "7", "from": "api", "at": "",
    }  # fmt: skip
    assert [row["reasons"].get("linkedin") for row in rows[3:]] == [
        "not known there", "not known there", *["later: a batch asks for 3 people at most"] * 2,
    ]  # fmt: skip

    rows = await ground.enrich(leads, "linkedin")
    assert sources.heard == {"linkedin": 4}
    assert rows[6]["reasons"] == {"linkedin": "later: 4 people are asked for in a minute at most"}
    ground.use(settings_of(sources.url, linkedin=api))
    rows = await ground.enrich(leads, "linkedin")
    assert (rows[6]["title"], sources.heard["linkedin"]) == ("CEO", 5)
    await ground.enrich(leads[2:3], "linkedin", tenant="other")
    assert sources.heard["linkedin"] == 6, "what one tenant knows of a person, another does not"
    assert sources.refused == ["nobody"] * 3


async def test_a_person_who_is_forgotten_is_forgotten_here_too(ground: Ground, sources: Sources) -> None:
    ground.use(settings_of(sources.url, linkedin={"url": f"{sources.url}/people", "version": "202601"}))
    for number in (1, 2):
        sources.people[f"lead{number}@example.com"] = {"title": f"Owner {number}"}
    await ground.enrich([lead(1), lead(2)], "linkedin", "census")
    await ground.enrich([lead(2, id="double")], "linkedin")
    person = "SELECT data ->> 'title' FROM circuit.enrichments WHERE source = 'linkedin.person' ORDER BY 1"
    assert await ground.rows(person) == ["Owner 1", "Owner 2"]
    async with ground.pool.connection() as connection:
        seen = await forget(connection, Person("c1", "acme", "Contact"), "eva", dry_run=True)
        assert seen.blanked["enrichments"] == 1
        done = await forget(connection, Person("c1", "acme", "Contact"), "eva")
        assert done.blanked["enrichments"] == 1
        assert await ground.rows(person) == ["Owner 2"]
        others = await forget(connection, Person("double", "other", "Contact"), "eva")
        assert "enrichments" not in others.blanked
        assert (await forget(connection, Person("double", "acme", "Contact"), "eva")).blanked["enrichments"] == 1
    assert await ground.rows(person) == []
    assert await ground.rows("SELECT count(*) FROM circuit.enrichments WHERE source LIKE 'census%%'") == [3]
    del sources.people["lead1@example.com"]
    (row,) = await ground.enrich([lead(1)], "linkedin")
    assert row["linkedin"] is None, "no process remembers either"


async def test_a_file_that_cannot_be_read_is_a_reason_and_a_new_one_counts_at_once(
    ground: Ground, sources: Sources, tmp_path: Path
) -> None:
    ground.use(settings_of(sources.url, linkedin={"csv": "leads.csv"}))
    (row,) = await ground.enrich([lead(1)], "linkedin")
    assert row["reasons"] == {"linkedin": "unavailable: leads.csv cannot be read"}
    (tmp_path / "leads.csv").write_bytes(b"\xff\xfe\x00,,\n\x00")
    (row,) = await ground.enrich([lead(1)], "linkedin")
    assert "has no column email" in row["reasons"]["linkedin"]
    (tmp_path / "leads.csv").write_bytes(
        b'\xef\xbb\xbfE-Mail;x,e-mail,"Title"\n,LEAD1@example.com,"Chief, ""Fun""\nOfficer"\nshort\n,,\n'
    )
    (row,) = await ground.enrich([lead(1)], "linkedin")
    assert row["linkedin"]["title"] == 'Chief, "Fun" Officer'
    (tmp_path / "leads.csv").write_text(CSV + ",Ann,Lee,Boss,Stars,,\n,ann,lée,Chef,STARS.,,\n,Bob,Ray,Cook,Stars,,\n")
    people = [{"name": f"{name}", "company": "Stars"} for name in ("Ann Lee", "bob ray", "Cy")]
    rows = await ground.enrich(people, "linkedin")
    assert [row["reasons"].get("linkedin") for row in rows] == [
        "several people of that name and company", None, "not listed",
    ]  # fmt: skip


async def test_what_was_answered_is_the_answer_of_the_next_try(ground: Ground, sources: Sources) -> None:
    journal = Journal()
    first = await ground.enrich([lead(1)], "census", journal=journal)
    async with ground.pool.connection() as connection:
        await connection.execute("DELETE FROM circuit.enrichments")
    ground.use(settings_of(sources.url))
    assert await ground.enrich([lead(1)], "census", journal=journal) == first
    assert sources.calls == 2

    sources.fail("geocoder", 400)
    journal = Journal()
    assert (await ground.enrich([lead(2)], "census", journal=journal))[0]["reasons"]
    assert journal.replies == {}
    assert not (await ground.enrich([lead(2)], "census", journal=journal))[0]["reasons"]


async def test_calls_are_in_the_trace_without_what_they_are_about(ground: Ground) -> None:
    await ground.enrich([lead(1)], "census", "maps")
    rows = [mark.row() for mark in ground.recorder.marks]
    assert [(row[1], row[5]) for row in rows] == [("enrich", "ok"), ("callout", "ok"), ("callout", "ok")]
    assert rows[0][6] == {"records": 1, "sources": "census, maps", "calls": 2}
    assert rows[2][6]["status"] == 200
    assert rows[2][6]["url"].endswith("/data/2023/acs/acs5")
    assert "Main" not in str(rows)


async def test_the_limits_of_the_execution_count_and_do_not_end_it(ground: Ground, sources: Sources) -> None:
    (row,) = await ground.enrich([lead(1)], "census", callouts=1)
    assert row["census"]["tract"]
    assert row["reasons"] == {"census": "later: the execution has used up its callouts"}
    assert sources.heard == {"geocoder": 1}
    ground.remaining = 0.1
    (row,) = await ground.enrich([lead(2)], "census")
    assert row["reasons"] == {"census": "later: the execution has no time left"}


async def test_hosts_that_may_not_be_called_are_not(ground: Ground, sources: Sources) -> None:
    (row,) = await ground.enrich([lead(1)], "census", egress=("api.example.com",))
    assert row["reasons"] == {"census": "refused: 127.0.0.1 is not in the egress list of the handler."}
    guarded = replace(ground.parts, guard=replace(ground.parts.guard, egress=("api.example.com",)))
    (row,) = await ground.enrich([lead(1)], "census", parts=guarded)
    assert row["reasons"] == {"census": "refused: 127.0.0.1 is not in the egress list of the app."}
    assert sources.calls == 0


async def test_a_key_leaves_by_tls_only_unless_it_stays_here(ground: Ground, sources: Sources) -> None:
    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1", "93.184.216.34"]

    ground.use(settings_of(sources.url, maps={"category": True, "url": f"http://places.example:{sources.port}"}))
    parts = replace(ground.parts, guard=replace(ground.parts.guard, resolve=resolve))
    (row,) = await ground.enrich([lead(1, companyName="Little Stars")], "maps", parts=parts)
    assert row["reasons"] == {"maps": "refused: a key leaves for Google Places by https only"}
    assert sources.heard == {"geocoder": 1}


async def test_a_quota_that_is_used_up_refuses_as_any_callout_does(ground: Ground, sources: Sources) -> None:
    async def spend(tenant: str) -> None:
        raise QuotaExceeded(f"{tenant} has used up its api_calls.", retry_after=60.0)

    broker = ground.execution(parts=replace(ground.parts, spend=spend))
    asked = {"leads": [{"street": "1 Main", "postal_code": 76701}], "sources": ["census"]}
    answer = await broker.request("enrich", asked)
    assert answer == {"refused": ["acme has used up its api_calls.", "", "quota-exceeded", 60.0], "defer": False}
    assert sources.calls == 0
    (row,) = await ground.enrich([{"address1": "1 Main", "postalCode": 76701}], "census")
    assert row["reasons"] == {}, "nobody else waits for what was not asked"


async def test_a_source_that_keeps_failing_is_left_alone(ground: Ground, sources: Sources) -> None:
    parts = replace(ground.parts, breakers=Breakers())
    sources.fail("geocoder", *[500] * 8)
    reasons = [(await ground.enrich([lead(n)], "census", parts=parts))[0]["reasons"]["census"] for n in range(5)]
    assert reasons[0] == "unavailable: the Census geocoder answered HTTP 500"
    assert reasons[-1] == "unavailable: the Census geocoder has failed too often, and is left alone"
    assert sources.heard["geocoder"] == 5


async def test_what_expired_is_asked_for_again_and_dropped_by_maintenance_once_it_is_old(
    ground: Ground, sources: Sources
) -> None:
    await ground.enrich([lead(1)], "census")
    (days,) = await ground.rows(
        "SELECT round(extract(epoch FROM min(expires_at) - now()) / 86400)::int FROM circuit.enrichments"
    )
    assert days == 365
    async with ground.pool.connection() as connection:
        await connection.execute("UPDATE circuit.enrichments SET expires_at = now() - interval '1 s'")
    ground.use(settings_of(sources.url))
    await ground.enrich([lead(1)], "census")
    assert sources.heard == {"geocoder": 2, "acs": 2}


async def test_two_batches_of_one_worker_ask_once(ground: Ground, sources: Sources) -> None:
    sources.gate.clear()
    brokers = [ground.execution() for _ in range(5)]
    leads = [lead(n) for n in range(20)]
    tasks = [asyncio.create_task(ask(broker, leads)) for broker in brokers]
    await until(lambda: sources.heard["geocoder"] == 1)
    waiting = "SELECT count(*) FROM circuit.enrichments WHERE claimed_by IS NOT NULL"
    assert await ground.rows(waiting) == [20]
    sources.gate.set()
    first, *others = await asyncio.gather(*tasks)
    assert all(each == first for each in others)
    assert sources.heard == {"geocoder": 1, "acs": 1}
    assert await ground.rows(waiting) == [0]


async def test_who_waited_for_an_answer_that_did_not_come_asks_for_it(ground: Ground, sources: Sources) -> None:
    spoiled = iter([b"<html>", None])
    sources.spoil = lambda body: next(spoiled) or body
    sources.gate.clear()
    first = asyncio.create_task(ask(ground.execution(), [lead(1)]))
    await until(lambda: sources.heard["geocoder"] == 1)
    second = asyncio.create_task(ask(ground.execution(), [lead(1)]))
    sources.gate.set()
    said = [row["reasons"] for (row,) in await asyncio.gather(first, second)]
    assert said == [{"census": "unavailable: the answer of the Census geocoder cannot be read"}, {}]
    assert sources.heard["geocoder"] == 2


async def test_an_execution_that_is_stopped_while_it_asks_leaves_no_claim(ground: Ground, sources: Sources) -> None:
    sources.gate.clear()
    task = asyncio.create_task(ask(ground.execution(), [lead(1)]))
    await until(lambda: sources.heard["geocoder"] == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ground.rows("SELECT claimed_by, expires_at FROM circuit.enrichments") == [(None, None)]
    sources.gate.set()
    assert (await ground.enrich([lead(1)], "census"))[0]["reasons"] == {}


async def test_a_source_that_says_nothing_is_not_waited_for(ground: Ground, sources: Sources) -> None:
    ground.use(settings_of(sources.url, census={"timeout": 0.2}))
    sources.gate.clear()
    (row,) = await ground.enrich([lead(1)], "census")
    assert row["reasons"] == {"census": "unavailable: the Census geocoder did not answer in time"}
    assert ground.broker.usage.callouts == 1


async def test_a_database_that_is_away_fails_the_execution_as_any_read_does(ground: Ground, sources: Sources) -> None:
    await ground.pool.close()
    with pytest.raises(RequestRefused, match="the database is away"):
        await ground.enrich([lead(1)], "census")
    assert ground.broker.away == "database"
    assert sources.calls == 0


async def test_a_claim_of_who_was_killed_ends(ground: Ground, sources: Sources) -> None:
    store, shelf = Store(ground.pool), Shelf("census.geocode Public_AR_Current Current_Current")
    await ground.enrich([lead(1)], "census")
    (key,) = await ground.rows("SELECT key FROM circuit.enrichments WHERE source = %s", shelf.source)
    async with ground.pool.connection() as connection:
        await connection.execute("DELETE FROM circuit.enrichments")
    assert await store.claim(shelf, [key], uuid7(), 3600)
    ground.use(settings_of(sources.url))
    ground.remaining = 1.2
    (row,) = await ground.enrich([lead(1)], "census")
    assert row["reasons"] == {"census": "later: another batch asks for it now"}
    async with ground.pool.connection() as connection:
        await connection.execute("UPDATE circuit.enrichments SET claimed_until = now() - interval '1 s'")
    (row,) = await ground.enrich([lead(1)], "census")
    assert row["reasons"] == {}


async def test_a_tenant_sees_its_own_rows_and_nobody_who_asks_now(ground: Ground, sources: Sources) -> None:
    ground.use(settings_of(sources.url, linkedin={"url": f"{sources.url}/people", "version": "202601"}))
    for tenant in ("north", "south"):
        await ground.enrich([lead(1)], "census", "linkedin", tenant=tenant)
    async with ground.pool.connection() as connection:
        for tenant in ("north", "south", ""):
            async with tenant_reading(connection, tenant):
                seen = await connection.execute("SELECT DISTINCT tenant FROM circuit.enrichments")
                assert await seen.fetchall() == ([(tenant,)] if tenant else [])
        for column in ("claimed_by", "about"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with tenant_reading(connection, "north"):
                    await connection.execute(f"SELECT {column} FROM circuit.enrichments".encode())


async def test_without_a_database_this_process_remembers(ground: Ground, sources: Sources) -> None:
    ground.use(settings_of(sources.url), shared=False)
    first = await ground.enrich([lead(1)], "census")
    assert await ground.enrich([lead(1)], "census") == first
    assert sources.calls == 2
    assert await ground.rows("SELECT count(*) FROM circuit.enrichments") == [0]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)
