"""A child runs no route but that of the handler for which a request was admitted, and the gateway means the same."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from circuit_script.endpoints.protocol import Offer
from circuit_script.endpoints.routes import Routes
from circuit_script.execution.host.pool import Pool
from circuit_script.execution.nursery import WebApp
from circuit_script.execution.outcome import Failed, Succeeded
from tests.integration.execution.calls import Caller, Door
from tests.integration.execution.conftest import Bench

ENDPOINTS = """
from typing import Annotated
from circuit_script import CircuitDB, endpoint
from fastapi import Depends, FastAPI

async def writes(): await CircuitDB.insert("Leak", {"a": 1})

@endpoint("leads/secrets")
async def zz_secrets(wrote: Annotated[None, Depends(writes)]): return "secret"

@endpoint("leads/{lead_id}", auth="none")
async def a_lead(lead_id: str): return lead_id

web = FastAPI()
"""

FLASK = """
from flask import Flask, request
from circuit_script import CircuitDB, run
from circuit_script.integrations.flask import governed

app = Flask(__name__)

@app.before_request
def hook(): run(CircuitDB.insert("Seen", {"a": 1}))

@app.errorhandler(Exception)
def all_is_well(error): return "all is well"

@app.get("/items")
def items_list(): return {"items": []}

@app.post("/items")
@governed(auth="key")
def write_item(): return {"created": True}

@app.get("/<page>")
def page(page): return {"page": page}

@app.get("/wadmin")
@governed(auth="key")
def zadmin(): return {"admin": True}

@app.get("/open/<name>")
@governed(auth="none")
def opened(name): return {"open": name}

@app.get("/open/closed")
def closed(): return {"closed": True}

class Override:
    def __init__(self, inner): self.inner = inner
    def __call__(self, environ, start_response):
        environ["REQUEST_METHOD"] = environ.get("HTTP_X_METHOD", environ["REQUEST_METHOD"])
        return self.inner(environ, start_response)

class Bare:
    def __call__(self, environ, start_response): return app(environ, start_response)

bare = Bare()
app.wsgi_app = Override(app.wsgi_app)
"""

STARLETTE = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

async def page(request): return PlainTextResponse("page")
async def admin(request): return PlainTextResponse("admin")
admin.__circuit_governed__ = {"name": "admin", "auth": "key"}
page.__circuit_governed__ = {"name": "page"}
app = Starlette(routes=[Route("/admin", admin), Route("/{name}", page), Mount("/in", Starlette())])
"""


class Front:
    """The gateway's choice before a real child."""

    def __init__(self, pool: Pool, routes: Routes) -> None:
        self._door = Door(Bench(pool))
        self._routes = routes

    async def ask(self, method: str, path: str, **headers: str) -> tuple[str, str, Any, Caller]:
        """The handler that the gateway chose, what it asks of callers, and what the child did."""
        found = self._routes.find(method, unquote(path))
        assert found is not None
        assert found.offer is not None
        outcome, caller = await self.force(found.offer.name, found.method, path, **headers)
        return found.offer.name, found.offer.spec.auth, outcome, caller

    async def force(self, handler: str, method: str, path: str, **headers: str) -> tuple[Any, Caller]:
        """What the child does with a request that was admitted for this handler."""
        sent = [("host", "here"), *((name.replace("_", "-"), value) for name, value in headers.items())]
        return await self._door.call(handler, method, path, headers=sent)


FrontOf = Callable[..., Awaitable[Front]]


@pytest.fixture
async def front_of(tmp_path: Path) -> AsyncIterator[FrontOf]:
    started: list[Pool] = []

    async def make(source: str, app: str, web: str) -> Front:
        (tmp_path / f"{app}.py").write_text(textwrap.dedent(source))
        pool = Pool(app_folder=tmp_path, app=app, size=1, on_change=lambda: None, web=WebApp(web, "none"))
        started.append(pool)
        manifest = await pool.start()
        offers = [Offer(each.name, each.endpoint) for each in manifest.handlers if each.endpoint is not None]
        return Front(pool, Routes(offers))

    yield make
    for pool in started:
        await pool.stop()


def refused(outcome: Any, caller: Caller) -> bool:
    """Nothing was run, and the log says why."""
    assert isinstance(outcome, Failed), outcome
    assert "Misrouted: the route of this request is of the handler" in outcome.reason
    assert caller.asked == []
    return True


async def test_a_function_with_a_literal_path_is_not_reached_through_an_open_one(front_of: FrontOf) -> None:
    front = await front_of(ENDPOINTS, "app", "app:web")

    name, auth, outcome, _ = await front.ask("GET", "/api/leads/secrets")
    assert (name, auth) == ("zz_secrets", "key")
    assert isinstance(outcome, Succeeded)
    for path in ("/api/leads/7", "/api/leads/secrets%0A"):
        name, auth, outcome, caller = await front.ask("GET", path)
        assert (name, auth) == ("a_lead", "none")
        assert isinstance(outcome, Succeeded)
        assert caller.json == unquote(path.removeprefix("/api/leads/"))
    assert refused(*await front.force("a_lead", "GET", "/api/leads/secrets"))


async def test_a_governed_view_is_not_reached_through_the_shared_handler(front_of: FrontOf) -> None:
    front = await front_of(FLASK, "legacy", "legacy:app")

    for method, path, expected in (
        ("POST", "/items", ("write_item", "key")),
        ("GET", "/items", ("web", "none")),
        ("GET", "/wadmin", ("zadmin", "key")),
        ("GET", "/other", ("web", "none")),
        ("GET", "/open/x", ("opened", "none")),
        ("GET", "/open/closed", ("web", "none")),
    ):
        *chosen, outcome, caller = await front.ask(method, path)
        assert tuple(chosen) == expected
        assert isinstance(outcome, Succeeded), outcome
        assert caller.status == 200
    assert refused(*await front.force("web", "POST", "/items"))
    assert refused(*await front.force("web", "GET", "/wadmin"))
    assert refused(*await front.force("opened", "GET", "/open/closed"))


async def test_an_app_that_changes_a_requests_method_does_not_reach_another_handlers_view(front_of: FrontOf) -> None:
    front = await front_of(FLASK, "legacy", "legacy:app")

    *_, outcome, caller = await front.ask("GET", "/items", x_method="POST")

    assert refused(outcome, caller)


async def test_a_governed_view_inside_another_wsgi_app_is_refused(front_of: FrontOf) -> None:
    front = await front_of(FLASK, "legacy", "legacy:bare")

    name, _, outcome, caller = await front.ask("GET", "/wadmin")
    assert name == "web"
    assert refused(outcome, caller)
    *_, outcome, _ = await front.ask("GET", "/items")
    assert isinstance(outcome, Succeeded)


async def test_a_route_of_starlette_runs_for_its_own_handler_only(front_of: FrontOf) -> None:
    front = await front_of(STARLETTE, "server", "server:app")

    for path, expected in (("/admin", ("admin", "key")), ("/admin%0A", ("admin", "key")), ("/x", ("page", "none"))):
        *chosen, outcome, _ = await front.ask("GET", path)
        assert tuple(chosen) == expected
        assert isinstance(outcome, Succeeded), outcome
    assert refused(*await front.force("page", "GET", "/admin"))
    assert refused(*await front.force("web", "GET", "/admin"))
