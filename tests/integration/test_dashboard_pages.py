"""Every page of the dashboard as it leaves the server, for each kind of person; what browsers do with it is a story."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from circuit_script import access
from circuit_script.db.pool import open_connection
from tests.browser.acts_stage import HOSTILE, TURNED, dashboard
from tests.servers import Server

PAGES = (
    "/", "/executions", "/executions?status=failed", "/records", "/records/Contact/c0", "/logs", "/logs?q=level:error",
    "/dead-letters", "/in-doubt", "/leads", "/leads/lead0", "/tenants", "/tenants/usage", "/vendors", "/limits?all=1",
    "/alerts", "/judgment", "/shadow",
)  # fmt: skip

OPENED = """
INSERT INTO circuit.shadows (release, against, by_whom) SELECT n.id, o.id, 'anna'
FROM circuit.releases n, circuit.releases o WHERE n.version = 'v1.9.0' AND o.version = 'v1.8.0'
"""
COMPARED = """
INSERT INTO circuit.comparisons (shadow, execution, worker, state, handler, records, different, differences)
SELECT id, gen_random_uuid(), gen_random_uuid(), 'different', 'score', 3, 1, %s FROM circuit.shadows
"""
FAILED = ("This page failed", "The database is away", "This took too long")


@dataclass
class Visitors:
    """``address`` is the dashboard's, ``url`` the database's."""

    address: str
    url: str

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[httpx.Client]:
        """Somebody who came by a one-time link."""
        with httpx.Client(base_url=self.address, headers={"origin": self.address}, timeout=30) as client:
            link = asyncio.run(self._link(name))
            entered = client.post("/sign-in", data={"link": link.rpartition("=")[2], "next": "/"})
            assert entered.status_code == 303, entered.text
            yield client

    async def _link(self, name: str) -> str:
        async with await open_connection(self.url) as connection:
            return await access.one_time_link(connection, self.address, name)


@pytest.fixture(scope="module")
def visitors(embedded_server: Server) -> Iterator[Visitors]:
    with dashboard(embedded_server) as (address, url):
        yield Visitors(address, url)


def test_every_page_is_built_for_its_tenant_and_keeps_what_others_may_not_see(visitors: Visitors) -> None:
    with visitors.of("viewer@acme.example") as viewer, visitors.of("boss@example.com") as owner:
        for path in PAGES:
            seen = viewer.get(path)
            assert seen.status_code == 200, path
            assert not any(words in seen.text for words in FAILED), path
            assert "secret-of-globex" not in seen.text, path
            assert HOSTILE not in seen.text, path
            assert TURNED not in seen.text, path
            assert owner.get(path).status_code == 200, path
        refused = viewer.get("/people").text
        assert "This is not for your role." in refused
        assert "boss@example.com" not in refused
        assert owner.get("/people").status_code == 200


def test_one_of_each_thing_has_its_page_and_anothers_has_none(visitors: Visitors) -> None:
    with visitors.of("operator@acme.example") as one, visitors.of("boss@example.com") as everywhere:
        letters = one.get("/dead-letters").text
        number = re.search(r"/dead-letters/(\d+)", letters)
        assert number is not None
        shown = one.get(number[0])
        assert shown.status_code == 200
        assert "Retry" in shown.text
        execution = re.search(r"/executions/[0-9a-f-]{36}", one.get("/executions").text)
        assert execution is not None
        assert "callouts" in one.get(execution[0]).text
        theirs = re.search(r"/dead-letters/\d+", everywhere.get("/dead-letters?tenant=globex").text)
        assert theirs is not None
        assert "secret-of-globex" in everywhere.get(f"{theirs[0]}?tenant=globex").text
        assert "secret-of-globex" not in one.get(theirs[0]).text
        assert one.get(f"{theirs[0]}?tenant=globex").status_code == 404


def test_nobody_sees_a_page_without_a_session(visitors: Visitors) -> None:
    with httpx.Client(base_url=visitors.address, timeout=30) as nobody:
        for path in (*PAGES, "/people"):
            answer = nobody.get(path)
            assert answer.status_code in (302, 303, 307), path
            assert answer.headers["location"].startswith("/sign-in"), path
        assert nobody.post("/sign-in", data={"name": "boss@example.com", "password": "x"}).status_code == 403


def test_a_shadow_is_seen_by_who_sees_all_tenants_and_its_values_stay_text(visitors: Visitors) -> None:
    asyncio.run(_shadowed(visitors.url))
    with visitors.of("boss@example.com") as owner, visitors.of("viewer@acme.example") as viewer:
        page = owner.get("/shadow").text
        assert "v1.9.0 beside v1.8.0" in page
        assert "Contact c7" in page
        assert "<script>seven</script>" not in page
        assert "&lt;script&gt;seven&lt;/script&gt;" in page
        hidden = viewer.get("/shadow").text
        assert "Of the whole installation" in hidden
        assert "Contact c7" not in hidden
        assert "v1.9.0" not in hidden


async def _shadowed(url: str) -> None:
    release = "INSERT INTO circuit.releases (content_hash, platform, manifest, version) VALUES (%s, '1', '[]', %s)"
    found = '[["c7", "Contact c7", "score", 78, "<script>seven</script>"]]'
    async with await open_connection(url) as connection:
        for version in ("v1.8.0", "v1.9.0"):
            await connection.execute(release, [f"shadow {version}", version])
        await connection.execute(OPENED)
        await connection.execute(COMPARED, [found])
