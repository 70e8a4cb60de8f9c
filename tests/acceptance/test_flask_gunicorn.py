"""A Flask app under gunicorn, beside ``serve``: governed routes are handed to the worker, the others stay."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from circuit_script.endpoints.address import socket_path
from tests.acceptance.flask_app import APP
from tests.acceptance.flask_platform import Answer, Gunicorn, ask, flask_served, gunicorn
from tests.acceptance.platform import COMMAND, START, Platform, environment
from tests.servers import Server, until

pytestmark = pytest.mark.story

MB = 1024 * 1024


@pytest.fixture(scope="module")
def platform(embedded_server: Server) -> Iterator[Platform]:
    with flask_served(embedded_server, {"app.py": APP}, more="[tenants.acme]") as started:
        yield started


@pytest.fixture(scope="module", params=["threads", "preload"])
def server(request: pytest.FixtureRequest, platform: Platform) -> Iterator[Gunicorn]:
    """gunicorn with threads that import the app themselves, and with processes forked from one that has."""
    kinds = {"threads": ["--workers", "2", "--threads", "8"], "preload": ["--workers", "2", "--preload"]}
    with gunicorn(platform.folder, *kinds[request.param]) as started:
        until(lambda: len(started.workers()) == 2, "gunicorn has both of its workers")
        yield started


def test_a_governed_route_runs_in_a_child_and_the_others_stay(platform: Platform, server: Gunicorn) -> None:
    answer = ask(server.port, "POST", "/score", {"id": "c1"})
    assert answer.json() == {"id": "c1", "governed": True, "tenant": "default"}
    stayed = ask(server.port, "GET", "/where").json()
    assert stayed["governed"] is False
    assert stayed["pid"] in server.workers()
    execution = answer.headers["execution-id"]
    assert platform.rows("SELECT status, event FROM circuit.executions WHERE id = %s", execution) == [
        ("succeeded", "POST /score")
    ]
    assert platform.rows("SELECT tenant FROM circuit.deliveries WHERE account = 'score' AND body = %s", b'{"id": "c1"}')


def test_a_view_that_loops_for_ever_is_ended_and_gunicorn_lives_on(server: Gunicorn) -> None:
    before = server.workers()
    answer = ask(server.port, "POST", "/spin", b"")
    assert answer.status in (500, 504)
    assert answer.json()["reason"] in ("cpu_time", "wall_time")
    assert server.workers() == before
    assert ask(server.port, "GET", "/plain").text == "plain"


def test_fifty_requests_at_once_get_fifty_answers(server: Gunicorn) -> None:
    def score(number: int) -> Answer:
        return ask(server.port, "POST", "/score", {"id": f"many{number}"})

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(score, range(50)))
    assert [each.status for each in answers] == [200] * 50, {each.text for each in answers}
    assert [each.json()["id"] for each in answers] == [f"many{number}" for number in range(50)]


def test_the_child_sees_the_request_as_gunicorn_did(server: Gunicorn) -> None:
    answer = ask(
        server.port,
        "PUT",
        "/echo/a%20b/caf%C3%A9?x=1&x=2",
        b"name=Ann",
        {"content-type": "application/x-www-form-urlencoded", "user-agent": "test", "authorization": "Basic abc"},
    ).json()
    assert answer["rest"] == "a b/café"
    assert answer["url"] == f"http://127.0.0.1:{server.port}/echo/a%20b/café?x=1&x=2"
    assert (answer["method"], answer["args"], answer["form"]) == ("PUT", {"x": ["1", "2"]}, {"name": "Ann"})
    assert (answer["remote"], answer["agent"], answer["key"], answer["length"]) == ("127.0.0.1", "test", "Basic abc", 8)


def test_a_request_in_chunks_arrives_whole(server: Gunicorn) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/size", iter([b"a" * 1000, b"b" * 500]), encode_chunked=True)
    assert connection.getresponse().read() == b'{"size":1500}\n'
    connection.close()


def test_an_uploaded_file_arrives_whole(server: Gunicorn) -> None:
    part = (
        b'--x\r\ncontent-disposition: form-data; name="leads"; filename="l.csv"\r\n\r\n' + bytes(2 * MB) + b"\r\n--x--"
    )
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert ask(server.port, "POST", "/echo/upload", part, kind).json()["files"] == {"leads": 2 * MB}
    assert ask(server.port, "POST", "/shop/reviews", part, kind).json() == {"governed": True}  # a hook has parsed it


def test_a_body_of_twenty_megabytes_arrives_whole(server: Gunicorn) -> None:
    assert ask(server.port, "POST", "/size", os.urandom(20 * MB)).json() == {"size": 20 * MB}


def test_sessions_redirects_errors_and_head_are_as_they_were(server: Gunicorn) -> None:
    first = ask(server.port, "GET", "/visits")
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert ask(server.port, "GET", "/visits", headers={"cookie": cookie}).json() == {"visits": 2}
    away = ask(server.port, "GET", "/away")
    assert (away.status, away.headers["location"]) == (302, "/visits")
    assert (ask(server.port, "POST", "/refuse", b"").status, ask(server.port, "POST", "/crash", b"").status) == (
        404,
        500,
    )
    assert ask(server.port, "POST", "/refuse", b"").json() == {"error": "not here"}
    head = ask(server.port, "HEAD", "/visits")
    assert (head.status, head.body) == (200, b"")


def test_server_sent_events_are_passed_on(server: Gunicorn) -> None:
    answer = ask(server.port, "GET", "/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("data: one\n\ndata: two\n\n")
    assert "event: done" in answer.text


def test_a_child_cannot_hand_over_to_its_own_worker(platform: Platform, server: Gunicorn) -> None:
    refused = ask(server.port, "POST", "/itself", b"").json()["refused"]
    # Out of its sight; where no mount can hide it, the worker refuses and says so.
    assert refused.startswith("No worker of the app answers") or "door.refused" in platform.log(), refused
    assert ask(server.port, "GET", "/plain").status == 200, "and goes on"


def test_a_key_names_the_tenant_and_a_wrong_one_is_refused(platform: Platform, server: Gunicorn) -> None:
    made = subprocess.run(
        [COMMAND, "keys", "create", f"web{server.port}", "--tenant", "acme", "--folder", str(platform.folder)],
        capture_output=True,
        text=True,
        timeout=START,
        env=environment(platform.database),
    )
    key = next(word for word in made.stdout.split() if word.startswith("cs_"))
    for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
        assert ask(server.port, "GET", "/keyed", headers=headers).json() == {"tenant": "acme"}
    assert ask(server.port, "GET", "/keyed").status == 401
    wrong = {"authorization": f"Bearer cs_{'x' * 43}"}
    assert ask(server.port, "GET", "/keyed", headers=wrong).status == 401
    assert ask(server.port, "POST", "/score", {"id": "c2"}, wrong).status == 401
    seen = ask(server.port, "GET", "/echo/key", headers={"authorization": f"Bearer {key}"}).json()
    assert seen["key"] is None  # a handler gets no credential of the platform


def test_a_killed_worker_costs_503_and_is_back_soon(embedded_server: Server) -> None:
    with (
        flask_served(embedded_server, {"app.py": APP}) as platform,
        gunicorn(platform.folder, "--workers", "1", "--threads", "4") as server,
        ThreadPoolExecutor(1) as threads,
    ):
        before = server.workers()
        waiting = threads.submit(ask, server.port, "POST", "/wait", b"")
        until((platform.folder / "begun").exists, "the view runs")
        os.kill(platform.one("worker").pid, signal.SIGKILL)
        lost = waiting.result(60)
        assert (lost.status, lost.headers["content-type"]) == (503, "application/problem+json")
        assert "retry-after" in lost.headers
        assert "may or may not have run" in server.log()
        (platform.folder / "go").touch()
        until(lambda: ask(server.port, "POST", "/wait", b"").text == "went", "the worker is back", START)
        assert server.workers() == before


def test_a_worker_alone_is_enough_and_without_one_the_log_says_what_to_start(embedded_server: Server) -> None:
    with flask_served(embedded_server, {"app.py": APP}, ["--role", "worker"]) as platform:
        with gunicorn(platform.folder) as server:
            until(socket_path(platform.folder).exists, "the worker listens")
            assert ask(server.port, "POST", "/score", {"id": "c1"}).status == 200
            assert platform.stop() == 0
            assert ask(server.port, "POST", "/score", {"id": "c1"}).status == 503
            assert "circuit-script serve --role worker" in server.log()
            assert ask(server.port, "GET", "/plain").text == "plain"
            assert psutil.pid_exists(server.process.pid)
