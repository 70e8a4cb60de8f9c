"""A Flask app under ``serve``: its old routes at their old paths, each governed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.acceptance.flask_app import APP
from tests.acceptance.flask_platform import ask, flask_served, folder_of
from tests.acceptance.platform import COMMAND, START, Platform, environment
from tests.servers import Server, until

pytestmark = pytest.mark.story

LIMITS = "[limits]\ncpu_time = 1\nwall_time = 6"


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    with flask_served(embedded_server, {"app.py": APP}, more=LIMITS) as started:
        yield started


def executions(platform: Platform, handler: str) -> list[tuple[str, str]]:
    """Status and event of each execution of a handler."""
    return [
        (status, event)
        for status, event in platform.rows(
            "SELECT e.status, e.event FROM circuit.executions e JOIN circuit.handlers h ON h.id = e.handler "
            "WHERE h.name = %s ORDER BY e.id",
            handler,
        )
    ]


def test_a_route_without_the_decorator_runs_governed_too(platform: Platform) -> None:
    answer = ask(platform.port, "GET", "/where")
    assert answer.json()["governed"] is True
    children = [each.pid for each in platform.find("child")]
    assert answer.json()["pid"] in children
    assert ("succeeded", "GET /where") in executions(platform, "web")


def test_paths_methods_and_errors_are_flasks(platform: Platform) -> None:
    assert ask(platform.port, "GET", "/leads/7/caf%C3%A9").json() == {"lead": 7}
    assert ask(platform.port, "GET", "/leads/seven/caf%C3%A9").json() == {"error": "not here"}
    assert ask(platform.port, "GET", "/folder").headers["location"].endswith("/folder/")
    assert ask(platform.port, "HEAD", "/plain").body == b""
    assert ask(platform.port, "POST", "/plain").status == 405
    assert ask(platform.port, "GET", "/no/such/route").status == 404


def test_a_governed_view_is_a_handler_with_ledger_log_and_effects(platform: Platform) -> None:
    answer = ask(platform.port, "POST", "/score", {"id": "c1"})
    assert answer.json() == {"id": "c1", "governed": True, "tenant": "default"}
    assert executions(platform, "score")[-1] == ("succeeded", "POST /score")
    assert platform.value("SELECT data->'score' FROM circuit.records WHERE object = 'Contact' AND id = 'c1'") == 90
    assert platform.value("SELECT body FROM circuit.deliveries WHERE account = 'score' LIMIT 1") == b'{"id": "c1"}'

    def lines() -> set[str]:
        rows = platform.rows(
            "SELECT message FROM circuit.circuit_logs WHERE execution = %s", answer.headers["execution-id"]
        )
        return {message for (message,) in rows}

    until(lambda: {"scored", "printed c1"} <= lines(), "its lines are in the log")


@pytest.mark.parametrize("path", ["/spin", "/ungoverned-spin"])
def test_a_view_that_loops_for_ever_is_ended_at_its_limit(platform: Platform, path: str) -> None:
    answer = ask(platform.port, "POST", path, b"")
    assert answer.status in (500, 504)
    assert answer.json()["reason"] in ("cpu_time", "wall_time")
    assert ask(platform.port, "GET", "/plain").text == "plain"


@pytest.mark.parametrize(("path", "status"), [("/crash", 500), ("/refuse", 404), ("/spin", None)])
def test_what_a_view_wrote_does_not_leave_when_it_fails(platform: Platform, path: str, status: int | None) -> None:
    answer = ask(platform.port, "POST", path, b"")
    assert answer.status == status or status is None
    assert "secret" not in answer.text
    assert platform.rows("SELECT FROM circuit.records WHERE id = 'never'") == []


def test_a_method_view_of_a_blueprint_is_a_handler(platform: Platform) -> None:
    assert ask(platform.port, "POST", "/shop/reviews", b"").json() == {"governed": True}
    assert executions(platform, "reviews.all")[-1] == ("succeeded", "POST /shop/reviews")


def test_server_sent_events_are_streamed(platform: Platform) -> None:
    answer = ask(platform.port, "GET", "/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("data: one\n\ndata: two\n\n")


OVERLAPPING = """
from flask import Flask
from circuit_script import endpoint
from circuit_script.integrations.flask import governed

app = Flask(__name__)

# declared first, sorts last
@endpoint("leads/secrets")
async def zz_secrets(): return "secret"

@endpoint("leads/{lead}", auth="none")
async def a_lead(lead: str): return lead

@app.get("/items")
def items(): return {"items": []}

@app.post("/items")
@governed(auth="key")
def write_item(): return {"created": True}

@app.post("/other")
def other(): return {}

@app.get("/<page>")
def page(page): return {"page": page}

@app.get("/wadmin")
@governed(auth="key")
def zadmin(): return {"admin": True}
"""


def test_a_route_that_asks_for_a_key_is_not_reached_without_one_by_a_route_that_overlaps(
    embedded_server: Server,
) -> None:
    closed = [("GET", "/api/leads/secrets"), ("POST", "/items"), ("GET", "/wadmin")]
    opened = [("GET", "/api/leads/7"), ("GET", "/items"), ("POST", "/other"), ("GET", "/wad"), ("GET", "/items%0A")]
    with flask_served(embedded_server, {"app.py": OVERLAPPING}) as platform:
        assert [ask(platform.port, *each).status for each in closed] == [401] * 3
        assert [ask(platform.port, *each).status for each in opened] == [200] * 5
        assert ask(platform.port, "GET", "/api/leads/" + "-" * 60_000).status == 414
        assert platform.rows("SELECT FROM circuit.executions WHERE status <> 'succeeded'") == []


WRONG_ORDER = """
from flask import Flask
from circuit_script.integrations.flask import governed

app = Flask(__name__)


@governed
@app.route("/score", methods=["POST"])
def score():
    return "called"
"""

ON_A_METHOD = """
from flask import Flask
from flask.views import MethodView
from circuit_script.integrations.flask import governed

app = Flask(__name__)


class Score(MethodView):
    @governed
    def post(self):
        return "called"


app.add_url_rule("/score", view_func=Score.as_view("score"))
"""

WRONG_LIMIT = """
from flask import Flask
from circuit_script.integrations.flask import governed

app = Flask(__name__)


@app.route("/score", methods=["POST"])
@governed(limits={"callout": 5})
def score():
    return "called"
"""


@pytest.mark.parametrize(
    ("source", "place", "cure"),
    [
        (WRONG_ORDER, "app.py:8: score: @governed stands above @app.route", "Put it below @app.route"),
        (ON_A_METHOD, "app.py:10: Score.post: it is @governed, but no route", "decorators = [governed]"),
        (WRONG_LIMIT, "app.py:8: score: there is no limit 'callout'", "Did you mean 'callouts'?"),
    ],
)
def test_a_wrong_use_is_refused_at_load_with_file_line_and_cure(
    embedded_server: Server, source: str, place: str, cure: str
) -> None:
    database = embedded_server.create_database(None)
    try:
        with folder_of({"app.py": source}) as (folder, _):
            ran = subprocess.run(
                [COMMAND, "serve", "--folder", str(folder)],
                capture_output=True,
                text=True,
                timeout=START,
                env=environment(embedded_server.url(database)) | {"COLUMNS": "500"},
            )
    finally:
        embedded_server.drop_database(database)
    said = " ".join((ran.stdout + ran.stderr).split())
    assert ran.returncode != 0
    assert place in said
    assert cure in said
