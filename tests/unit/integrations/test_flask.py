"""``@governed`` outside of a child: what is handed over, what comes back, and what an application does not notice."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from flask.testing import FlaskClient
from flask.views import MethodView

from circuit_script.endpoints.protocol import Answer, Chunk, End, Head
from circuit_script.integrations.flask import MARK, declared, governed
from tests.unit.integrations.scripted_door import Door, listening


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as made:  # short: a socket's path has 108 bytes
        (Path(made) / "circuit.toml").touch()
        yield Path(made)


@pytest.fixture
def app(folder: Path, monkeypatch: pytest.MonkeyPatch) -> flask.Flask:
    """An app in that folder, as gunicorn has it: not under test."""
    monkeypatch.delenv("CIRCUIT_FOLDER", raising=False)
    app = flask.Flask("shop", root_path=str(folder))
    app.secret_key = "of the tests"

    @app.route("/score/<lead>", methods=["GET", "POST"])
    @governed
    def score(lead: str) -> Any:
        return {"called": lead}

    return app


@pytest.fixture
def client(app: flask.Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def door(folder: Path) -> Iterator[Door]:
    with listening(folder) as listened:
        yield listened


def said(door: Door, status: int = 200, headers: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> None:
    door.says = lambda _: [Answer(status, list(headers), body)]


def test_under_test_the_view_is_called_as_it_is(app: flask.Flask, client: FlaskClient) -> None:
    app.testing = True
    assert client.post("/score/c1").json == {"called": "c1"}


def test_a_test_may_ask_for_the_real_thing(
    app: flask.Flask, client: FlaskClient, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.testing = True
    monkeypatch.setenv("CIRCUIT_GOVERNED_IN_TESTS", "1")
    assert client.post("/score/c1", data="by the worker").text == "by the worker"


def test_the_whole_request_is_handed_over(client: FlaskClient, door: Door) -> None:
    client.set_cookie("a", "b", domain="shop.example")
    client.post(
        "/score/a%20b-c%C3%A9",
        query_string="x=1&x=%C3%A9",
        data=b"\x00\xff",
        headers={"X-Shop": "acme", "Connection": "close"},
        base_url="https://shop.example",
        environ_overrides={"REMOTE_ADDR": "203.0.113.9"},
    )
    (call,) = door.calls
    request = call.request
    assert (call.tenant, call.endpoint, call.key) == ("", "", None)
    assert (request.method, request.path, request.query) == ("POST", "/score/a%20b-c%C3%A9", "x=1&x=%C3%A9")
    assert (request.scheme, request.client, request.body) == ("https", "203.0.113.9", b"\x00\xff")
    headers = dict(request.headers)
    assert (headers["host"], headers["x-shop"], headers["cookie"]) == ("shop.example", "acme", "a=b")
    assert headers["content-length"] == "2"
    assert "connection" not in headers


def test_an_idempotency_key_is_handed_over(client: FlaskClient, door: Door) -> None:
    client.post("/score/c1", headers={"Idempotency-Key": "once"})
    assert door.calls[0].key == "once"


def test_the_answer_is_passed_on_as_it_is(client: FlaskClient, door: Door) -> None:
    headers = (("content-type", "text/x"), ("execution-id", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"))
    said(door, 404, headers, b"no such lead")
    answer = client.get("/score/c1")
    assert (answer.status_code, answer.data, answer.content_type) == (404, b"no such lead", "text/x")
    assert answer.headers.getlist("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["content-length"] == "12"


def test_a_redirect_is_passed_on(client: FlaskClient, door: Door) -> None:
    said(door, 302, (("location", "/elsewhere?a=%C3%A9"),))
    assert client.get("/score/c1").headers["location"] == "/elsewhere?a=%C3%A9"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("GET", 204)])
def test_an_answer_without_a_body_has_none(client: FlaskClient, door: Door, method: str, status: int) -> None:
    said(door, status, (("content-length", "12"),) if method == "HEAD" else (), b"")
    answer = client.open("/score/c1", method=method)
    assert (answer.status_code, answer.data) == (status, b"")


def test_a_streamed_answer_is_passed_on_piece_by_piece(client: FlaskClient, door: Door) -> None:
    door.says = lambda _: [Head(200, [("content-type", "text/event-stream")]), Chunk(b"one"), Chunk(b"two"), End()]
    answer = client.get("/score/c1")
    assert list(answer.iter_encoded()) == [b"one", b"two"]
    assert "content-length" not in answer.headers


def test_a_caller_that_leaves_a_stream_hangs_up(client: FlaskClient, door: Door) -> None:
    door.says = lambda _: [Head(200, []), Chunk(b"one")]
    answer = client.get("/score/c1", buffered=False)
    assert next(iter(answer.response)) == b"one"
    answer.close()
    assert door.hung_up.wait(10)


def test_what_a_hook_has_parsed_still_reaches_the_worker(app: flask.Flask, client: FlaskClient, door: Door) -> None:
    seen = []
    app.before_request(lambda: seen.append((flask.request.form["name"], flask.request.files["list"].read())))
    client.post("/score/c1", data={"name": "Ann", "list": (io.BytesIO(b"a,b"), "leads.csv")})
    assert seen == [("Ann", b"a,b")]
    body = door.calls[0].request.body
    assert b'name="name"' in body
    assert b"a,b" in body


def test_a_hook_that_answers_keeps_the_request_from_the_worker(
    app: flask.Flask, client: FlaskClient, door: Door
) -> None:
    app.before_request(lambda: ("log in first", 401))
    assert client.get("/score/c1").status_code == 401
    assert door.calls == []


def test_hooks_and_session_of_this_process_do_not_change_the_answer(
    app: flask.Flask, client: FlaskClient, door: Door
) -> None:
    @app.before_request
    def visit() -> None:
        flask.session["visits"] = 1
        flask.session.permanent = True

    @app.after_request
    def add(response: flask.Response) -> flask.Response:
        response.headers.add("x-seen", "here")
        response.set_data("other")
        return response

    said(door, 200, (("x-seen", "in the child"), ("set-cookie", "session=child")), b"as it was")
    answer = client.get("/score/c1")
    assert answer.headers.getlist("x-seen") == ["in the child"]
    assert answer.headers.getlist("set-cookie") == ["session=child"]
    assert answer.data == b"as it was"


def test_an_app_with_a_response_class_of_its_own_passes_the_answer_on_too(
    app: flask.Flask, client: FlaskClient, door: Door
) -> None:
    class Own(flask.Response):
        default_mimetype = "text/own"

    app.response_class = Own
    said(door, 200, (("content-type", "text/x"),), b"as it was")
    answer = client.get("/score/c1")
    assert (answer.data, answer.content_type) == (b"as it was", "text/x")


def test_without_a_worker_the_caller_gets_503_and_the_log_the_cure(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.post("/score/c1")
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.headers["retry-after"] == "1"
    assert "circuit-script serve --role worker" in caplog.text
    assert "/tmp" not in answer.text


def test_a_route_that_the_worker_does_not_have_is_no_404(
    client: FlaskClient, door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    said(door, 404, (("content-type", "application/problem+json"),), b"{}")
    assert client.post("/score/c1").status_code == 503
    assert "[web] app" in caplog.text


def test_without_a_circuit_toml_the_log_says_what_to_set(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    app = flask.Flask("shop", root_path=str(tmp_path))
    app.add_url_rule("/", view_func=governed(lambda: "called"))
    assert app.test_client().get("/").status_code == 503
    assert "CIRCUIT_FOLDER" in caplog.text


def test_a_body_that_cannot_be_handed_over_is_413(client: FlaskClient, door: Door) -> None:
    answer = client.post("/score/c1", data=bytes(32 * 1024 * 1024))
    assert answer.status_code == 413
    assert door.calls == []


def test_blueprints_and_method_views_are_handed_over(app: flask.Flask, client: FlaskClient, door: Door) -> None:
    class Reviews(MethodView):
        decorators = [governed]  # noqa: RUF012 - as Flask documents it

        def post(self) -> str:
            return "called"

    blueprint = flask.Blueprint("reviews", __name__)
    blueprint.add_url_rule("/reviews", view_func=Reviews.as_view("all"))
    app.register_blueprint(blueprint, url_prefix="/shop")
    assert client.post("/shop/reviews", data="by the worker").text == "by the worker"
    assert door.calls[0].request.path == "/shop/reviews"


def test_other_routes_stay_where_they_are(app: flask.Flask, client: FlaskClient, door: Door) -> None:
    app.add_url_rule("/plain", view_func=lambda: "here", endpoint="plain")
    assert client.get("/plain").text == "here"
    assert door.calls == []


def test_the_view_on_the_route_carries_what_was_said_of_it(app: flask.Flask) -> None:
    @app.get("/said")
    @governed(name="saying", limits={"callouts": 5}, deadline=10, auth="key", share_child=True)
    def view() -> str:
        return "called"

    expected = {"name": "saying", "limits": {"callouts": 5}, "deadline": 10, "auth": "key", "share_child": True}
    assert getattr(app.view_functions["view"], MARK) == expected
    last = declared[-1]
    assert last.said is getattr(app.view_functions["view"], MARK)
    assert last.file == __file__
    assert Path(__file__).read_text().splitlines()[last.line - 1].strip() == '@app.get("/said")'


def test_the_deadline_of_a_route_goes_with_the_call(app: flask.Flask, client: FlaskClient, door: Door) -> None:
    app.add_url_rule("/quick", view_func=governed(deadline=3)(lambda: "called"), endpoint="quick")
    client.get("/quick")
    assert door.calls[0].seconds == 3
