"""Flask views that run governed, wherever their application runs.

``@governed`` stands below ``@app.route``. What it does depends on the process:

- under ``circuit-script serve`` the view already runs in a governed child: it is called;
- in any other process (gunicorn, ``flask run``) the whole request is handed to the worker on this host, whose answer is
  passed on;
- while ``app.testing`` is set the view is called as it is, unless ``CIRCUIT_GOVERNED_IN_TESTS=1``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, overload
from urllib.parse import quote
from wsgiref.types import WSGIEnvironment

import msgspec
from flask import Flask, Response, current_app, request, request_started
from werkzeug.exceptions import RequestEntityTooLarge, RequestURITooLarge
from werkzeug.wsgi import ClosingIterator

from circuit_script import Limits, current_context
from circuit_script.endpoints.address import FOLDER, find_folder
from circuit_script.endpoints.blocking import (
    UNSENT,
    Answer,
    HttpRequest,
    ProtocolError,
    Stream,
    WorkerClient,
    WorkerUnavailable,
)
from circuit_script.endpoints.protocol import MAX_FRAME, Call
from circuit_script.endpoints.routes import MAX_PATH

MARK = "__circuit_governed__"
GOVERNED_IN_TESTS = "CIRCUIT_GOVERNED_IN_TESTS"
MAX_BODY = MAX_FRAME - 1024 * 1024  # bytes; the rest is for the headers
LONGEST_DEADLINE = 300.0  # seconds; what is not said here, the app's configuration says
PATIENCE = 10.0  # seconds over the deadline: the worker's verdict comes first
EXECUTED = "execution-id"  # a header of every answer that a handler has given
RETRY_AFTER = 1  # seconds; a worker that ended is started again at once
SAFE = "/:@!$&'()*+,;=~-._"  # in a path, besides letters and digits

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Declared:
    """One use of ``@governed``. A route's view must carry what it ``said``, or Flask does not know of it.

    ``written`` is the view without it.
    """

    said: Mapping[str, Any]
    written: Callable[..., Any]
    name: str
    file: str
    line: int


declared: list[Declared] = []


@overload
def governed(view: View, /) -> View: ...
@overload
def governed(
    *,
    name: str | None = None,
    limits: Limits | Mapping[str, float] | None = None,
    deadline: float | None = None,
    auth: str | None = None,
    share_child: bool = False,
) -> Callable[[View], View]: ...
def governed(
    view: View | None = None,
    /,
    *,
    name: str | None = None,
    limits: Limits | Mapping[str, float] | None = None,
    deadline: float | None = None,
    auth: str | None = None,
    share_child: bool = False,
) -> View | Callable[[View], View]:
    """Run this view as a handler of its own: limited, logged, in the ledger.

    It stands directly below ``@app.route``; of a MethodView write ``decorators = [governed]``. ``name`` is the
    handler's (default: the route's endpoint), ``limits`` replaces single limits ({"callouts": 5}) or all, ``deadline``
    is in seconds, ``auth`` is "key" (callers need an API key of the platform) or "none" (default: what ``[web] auth``
    says, and that is "none"), ``share_child`` promises that the view keeps no state in globals.
    """

    def decorate(written: View) -> View:
        said = {"name": name, "limits": limits, "deadline": deadline, "auth": auth, "share_child": share_child}

        @functools.wraps(written)
        def wrapper(*args: Any, **named: Any) -> Any:
            if _runs_here(current_app):
                return current_app.ensure_sync(written)(*args, **named)
            return _handed_over(deadline)

        setattr(wrapper, MARK, said)
        code = getattr(written, "__code__", None)
        place = (code.co_filename, code.co_firstlineno) if code is not None else ("", 0)
        declared.append(Declared(said, written, getattr(written, "__qualname__", repr(written)), *place))
        return cast(View, wrapper)

    return decorate if view is None else decorate(view)


def _runs_here(app: Flask) -> bool:
    """Whether the view is to be called in this process."""
    if current_context() is not None:
        return True
    return app.testing and os.environ.get(GOVERNED_IN_TESTS) != "1"


@request_started.connect
def _keep_body(app: Flask, **_: Any) -> None:
    """Read the whole body before a hook takes it apart: what was parsed cannot be handed over."""
    view = app.view_functions.get(request.endpoint or "")
    if view is not None and hasattr(view, MARK) and not _runs_here(app):
        if (request.content_length or 0) > MAX_BODY:
            raise RequestEntityTooLarge
        request.get_data(cache=True)


def _handed_over(deadline: float | None) -> Response:
    """The worker's answer to the current request; a problem of 503 when there is none."""
    if len(request.path) > MAX_PATH:
        raise RequestURITooLarge
    # An empty endpoint is found by method and path; an empty tenant by the request's API key.
    call = Call("", "", _current_request(), deadline or 0.0, request.headers.get("idempotency-key"))
    try:
        client = _client(current_app.root_path, os.environ.get(FOLDER))
        answer = client.call(call, (deadline or LONGEST_DEADLINE) + PATIENCE)
        _must_be_known(answer)
    except WorkerUnavailable as error:
        current_app.logger.error("%s was not handed over. %s", request.path, error)
        return _unavailable(error)
    except ProtocolError as error:
        raise RequestEntityTooLarge(str(error)) from None
    return _passed_on(answer)


@functools.lru_cache
def _client(root_path: str, named: str | None) -> WorkerClient:
    """One client per app and process. Raises WorkerUnavailable when the app's folder is not known."""
    folder = find_folder(Path(root_path))
    if folder is None:
        raise WorkerUnavailable(
            f"There is no circuit.toml in {root_path} or above it.",
            cure=f"Add one, or set {FOLDER} to the folder that has it.",
        )
    return WorkerClient(folder)


def _must_be_known(answer: Answer | Stream) -> None:
    """A route of this process that the worker does not have is no 404: the two run different apps."""
    if isinstance(answer, Answer) and answer.status == 404 and not any(name == EXECUTED for name, _ in answer.headers):
        raise WorkerUnavailable(
            f"It does not have the route {request.method} {request.path}.",
            cure='Name this app in circuit.toml ([web] app = "module:attr"), and start the worker again.',
        )


def _current_request() -> HttpRequest:
    body = request.get_data(cache=True)
    headers = [(name.lower(), value) for name, value in request.headers if name.lower() not in UNSENT]
    if body or "content-length" in request.headers:
        headers.append(("content-length", str(len(body))))
    return HttpRequest(
        method=request.method,
        path=quote(request.environ.get("PATH_INFO", "/").encode("latin-1"), safe=SAFE),  # as the app was given it
        query=request.query_string.decode("latin-1"),
        headers=tuple(headers),
        body=body,
        scheme=request.scheme,
        client=request.remote_addr or "",
    )


def _unavailable(error: WorkerUnavailable) -> Response:
    problem = {
        "type": f"/problems/{error.page}",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The worker that runs this route does not answer. Send again.",
    }
    headers = {"retry-after": str(RETRY_AFTER)}
    return Response(msgspec.json.encode(problem), 503, headers, content_type="application/problem+json")


class _FromWorker(Response):
    """A child's answer, as it is. Hooks and the session had their say on it in the child; what they do to it in this
    process is not sent."""

    said: Answer | Stream

    def get_wsgi_response(self, environ: WSGIEnvironment) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        said = self.said
        headers = [(name, value) for name, value in said.headers if name.lower() != "transfer-encoding"]
        bodiless = environ["REQUEST_METHOD"] == "HEAD" or said.status in (204, 304)
        if isinstance(said, Answer):
            if not bodiless and not any(name.lower() == "content-length" for name, _ in headers):
                headers.append(("content-length", str(len(said.body))))
            body: Iterable[bytes] = (said.body,)
        else:
            body = said
        status = Response(status=said.status).status
        return ClosingIterator(() if bodiless else body, self.close), status, headers


@functools.lru_cache
def _answer_class(response_class: type[Response]) -> type[_FromWorker]:
    """Flask turns a foreign response into one of the app's class, and would lose ours."""
    if issubclass(_FromWorker, response_class):
        return _FromWorker
    return cast(type[_FromWorker], type("FromWorker", (_FromWorker, response_class), {}))


def _passed_on(answer: Answer | Stream) -> Response:
    headers = [(name, value) for name, value in answer.headers if name.lower() != "transfer-encoding"]
    body = [answer.body] if isinstance(answer, Answer) else []
    kind = _answer_class(current_app.response_class)  # type: ignore[arg-type]  # a class is hashable, says Python
    response = kind(body, answer.status, headers)
    response.said = answer
    if isinstance(answer, Stream):
        response.call_on_close(answer.close)
    return response
