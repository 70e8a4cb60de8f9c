"""The author's own Flask, FastAPI or bare app as endpoints."""

from __future__ import annotations

import re
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from circuit_script.errors import AppError
from circuit_script.execution.host.pool import Manifest, Pool
from circuit_script.execution.nursery import WebApp
from circuit_script.execution.outcome import Breached, EndpointSpec, Failed, Succeeded
from tests.integration.execution.calls import Caller, Door
from tests.integration.execution.conftest import Bench

FLASK = """
import time, threading
from flask import Flask, Response, abort, jsonify, request, stream_with_context
from circuit_script import CircuitDB, HTTPProblem, http, log, run, current_context

flask_app = Flask(__name__)

@flask_app.get("/")
def home(): return "<h1>hello</h1>"

@flask_app.post("/leads/<int:lead_id>/notes")
def note(lead_id):
    assert threading.current_thread() is threading.main_thread()
    run(CircuitDB.update("Contact", {"id": str(lead_id), "note": request.get_json()["note"]}))
    return jsonify(saved=lead_id, arg=request.args.get("q"), agent=request.headers["User-Agent"],
                   tenant=current_context().tenant), 201, {"X-Made": "here"}

@flask_app.get("/files/<path:name>")
def file(name): return name

@flask_app.get("/folder/")
def folder(): return "folder"

@flask_app.get("/gone")
def gone():
    run(CircuitDB.update("Contact", {"id": "1"}))
    abort(410)

@flask_app.get("/problem")
def problem(): raise HTTPProblem(409, "taken", seats=0)

@flask_app.get("/breaks")
def breaks(): raise KeyError("secret")

@flask_app.errorhandler(500)
def sorry(error): return "we are sorry", 500

@flask_app.get("/sleeps")
def sleeps(): time.sleep(60)

@flask_app.get("/calls")
def calls():
    for _ in range(3): run(http.get("http://x/"))

@flask_app.get("/events")
def events():
    def each():
        yield "data: 1\\n\\n"
        run(CircuitDB.query("Contact"))
        yield "data: 2\\n\\n"
    return Response(stream_with_context(each()), mimetype="text/event-stream")

@flask_app.get("/late-break")
def late_break():
    def each():
        yield "a"
        raise ValueError("late")
    return Response(each())

@flask_app.post("/hook/<name>")
def hook(name):
    '''Take a hook.'''
    return request.get_data()

hook.__circuit_governed__ = {
    "name": "hook", "limits": {"callouts": 2}, "deadline": 7, "auth": "key", "share_child": None
}
flask_app.view_functions["hook"] = hook
"""

FASTAPI = """
from contextlib import asynccontextmanager
from fastapi import APIRouter, FastAPI, Request
from circuit_script import CircuitDB, log

@asynccontextmanager
async def lifespan(app):
    log.info("up")
    yield {"greeting": "hello"}
    log.info("down")

app = FastAPI(lifespan=lifespan)
router = APIRouter(prefix="/v1")

@router.get("/greet/{name}")
async def greet(name: str, request: Request):
    await CircuitDB.query("Contact")
    return {"said": f"{request.state.greeting} {name}"}

@app.get("/breaks")
async def breaks(): raise KeyError("secret")

app.include_router(router)
"""

BARE_WSGI = """
def application(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("X-Path", environ["PATH_INFO"])])
    write(b"written ")
    environ["wsgi.errors"].write("noted\\n")
    return Closing([environ["wsgi.input"].read(), b"!", environ["HTTP_COOKIE"].encode()])

class Closing(list):
    def close(self): print("closed")
"""

BARE_ASGI = """
async def app(scope, receive, send):
    assert scope["type"] == "http", scope["type"]
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["method"].encode() + b" " + message["body"]})
    assert (await receive())["type"] == "http.disconnect"
"""

WebOf = Callable[..., Awaitable[tuple[Door, Manifest]]]


@pytest.fixture
async def web_of(tmp_path: Path) -> AsyncIterator[WebOf]:
    started: list[Pool] = []

    async def make(source: str, where: str, **said: Any) -> tuple[Door, Manifest]:
        (tmp_path / f"{where.partition(':')[0]}.py").write_text(textwrap.dedent(source))
        pool = Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None, web=WebApp(where, **said))
        started.append(pool)
        manifest = await pool.start()
        return Door(Bench(pool)), manifest

    yield make
    for pool in started:
        await pool.stop()


HEADERS = [("content-type", "application/json"), ("user-agent", "test"), ("host", "here:8000"), ("cookie", "a=1")]


async def call(door: Door, method: str, path: str, body: Any = None, **rest: Any) -> tuple[Any, Caller]:
    return await door.call(rest.pop("handler", "web"), method, path, body, headers=HEADERS, **rest)


async def test_a_flask_app_answers_in_the_child_with_its_own_status_headers_and_body(web_of: WebOf) -> None:
    door, _ = await web_of(FLASK, "legacy:flask_app")

    outcome, caller = await call(door, "GET", "/")
    assert isinstance(outcome, Succeeded)
    assert caller.body == b"<h1>hello</h1>"
    assert caller.header["content-type"] == "text/html; charset=utf-8"

    outcome, caller = await call(door, "POST", "/leads/42/notes", {"note": "hi"}, query="q=a%20b")
    assert isinstance(outcome, Succeeded)
    assert not outcome.discard
    assert caller.status == 201
    assert caller.header["x-made"] == "here"
    assert caller.json == {"saved": 42, "arg": "a b", "agent": "test", "tenant": "acme"}
    assert [verb for verb, _ in caller.asked] == ["dml"]

    _, caller = await call(door, "GET", "/files/a/b%C3%A9")
    assert caller.body.decode() == "a/bé"


async def test_a_flask_app_that_says_no_discards(web_of: WebOf) -> None:
    door, _ = await web_of(FLASK, "legacy:flask_app")

    for path, status in (("/gone", 410), ("/nowhere", 404), ("/problem", 409)):
        outcome, caller = await call(door, "GET", path)
        assert isinstance(outcome, Succeeded), outcome
        assert outcome.discard
        assert caller.status == status
    assert caller.json["seats"] == 0
    assert caller.header["content-type"] == "application/problem+json"


async def test_an_exception_in_a_view_fails_the_execution_with_its_traceback(web_of: WebOf) -> None:
    door, _ = await web_of(FLASK, "legacy:flask_app")

    outcome, caller = await call(door, "GET", "/breaks")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "KeyError: 'secret'"
    assert "in breaks" in outcome.detail
    assert (caller.status, caller.body) == (500, b"we are sorry")

    outcome, _ = await call(door, "GET", "/late-break")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "ValueError: late"


async def test_limits_hold_in_a_flask_view(web_of: WebOf) -> None:
    door, _ = await web_of(FLASK, "legacy:flask_app")

    outcome, _ = await call(door, "GET", "/sleeps", wall_time=0.2)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "wall_time"

    class Strict(Caller):
        async def request(self, verb: str, arguments: dict[str, Any]) -> Any:
            return await super().request("connect" if self.usage.callouts > 1 else verb, arguments)

    strict = Strict()
    strict.usage.callouts = 2
    outcome, _ = await call(door, "GET", "/calls", caller=strict)
    assert isinstance(outcome, Breached)
    assert outcome.limit == "callouts"


async def test_a_flask_stream_leaves_piece_by_piece(web_of: WebOf) -> None:
    door, _ = await web_of(FLASK, "legacy:flask_app")

    outcome, caller = await call(door, "GET", "/events")

    assert isinstance(outcome, Succeeded), outcome
    assert caller.head is not None
    assert caller.head.streamed
    assert caller.chunks == [b"data: 1\n\n", b"data: 2\n\n"]
    assert caller.queries_when == [0, 1]


async def test_flask_routes_become_endpoints_and_governed_views_have_their_own(web_of: WebOf) -> None:
    door, manifest = await web_of(FLASK, "legacy:flask_app", auth="none", deadline=12)
    specs = {spec.name: spec for spec in manifest.handlers}
    web, hook = specs["web"], specs["hook"]

    assert web.endpoint is not None
    assert (web.endpoint.kind, web.endpoint.auth, web.endpoint.deadline) == ("web", "none", 12)
    for path in ("/", "/leads/42/notes", "/files/a/b", "/folder", "/folder/", "/static/x/y.css"):
        assert _matches(web.endpoint, path), path
    for path in ("/nowhere", "/leads/42", "/hook/x"):
        assert not _matches(web.endpoint, path), path
    assert hook.endpoint is not None
    assert (hook.endpoint.auth, hook.endpoint.deadline, hook.endpoint.paths) == ("key", 7, ("/hook/[^/]+",))
    assert (hook.limits.callouts, hook.limits.wall_time) == (2, 7)
    assert Path(hook.file).name == "legacy.py"
    assert FLASK.splitlines()[hook.line - 1] == '@flask_app.post("/hook/<name>")'
    assert hook.doc == "Take a hook."

    _, caller = await call(door, "POST", "/hook/x", b"\x00\xff", handler="hook")
    assert caller.body == b"\x00\xff"


async def test_a_fastapi_app_answers_with_its_lifespan_around_each_call(web_of: WebOf) -> None:
    door, manifest = await web_of(FASTAPI, "server:app")
    [web] = manifest.handlers
    assert web.endpoint is not None
    assert _matches(web.endpoint, "/v1/greet/Ada")

    for _ in range(2):
        outcome, caller = await call(door, "GET", "/v1/greet/Ada")
        assert isinstance(outcome, Succeeded), outcome
        assert caller.json == {"said": "hello Ada"}
        assert caller.messages == ["up", "down"]
    outcome, caller = await call(door, "GET", "/breaks")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "KeyError: 'secret'"


async def test_a_bare_wsgi_app_gets_body_cookies_and_a_close(web_of: WebOf) -> None:
    door, manifest = await web_of(BARE_WSGI, "wsgi:application")

    outcome, caller = await call(door, "POST", "/a%20b", b"body")

    assert isinstance(outcome, Succeeded), outcome
    assert caller.body == b"written body!a=1"
    assert caller.header["x-path"] == "/a b"
    assert sorted(caller.messages) == ["closed", "noted"]
    [web] = manifest.handlers
    assert web.endpoint is not None
    assert _matches(web.endpoint, "/anything")


async def test_a_bare_asgi_app_without_lifespan_answers(web_of: WebOf) -> None:
    door, _ = await web_of(BARE_ASGI, "bare:app")

    for _ in range(2):
        outcome, caller = await call(door, "PUT", "/x", b"body")
        assert isinstance(outcome, Succeeded), outcome
        assert caller.body == b"PUT body"
    assert caller.messages == []


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ("nowhere:app", "there is no module nowhere"),
        ("legacy:nothing", "has no nothing"),
        ("legacy:number", "which is a int: neither a WSGI nor an ASGI app"),
    ],
)
async def test_a_web_app_that_is_none_is_refused(web_of: WebOf, tmp_path: Path, where: str, wrong: str) -> None:
    (tmp_path / "legacy.py").write_text("number = 5")
    pool = Pool(app_folder=tmp_path, app="app", size=1, on_change=lambda: None, web=WebApp(where))

    with pytest.raises(AppError, match=wrong):
        await pool.start()
    await pool.stop()


def _matches(spec: EndpointSpec, path: str) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in spec.paths)
