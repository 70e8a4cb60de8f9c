"""A WSGI app (PEP 3333) as an ASGI app. It runs in the child's main thread, where its wall time can end it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import unquote_to_bytes

from circuit_script.execution.child.answering import Receive, Send
from circuit_script.execution.child.running import alarmed
from circuit_script.execution.session import session

WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Faults = Callable[[list[BaseException]], AbstractContextManager[None]]

_END = object()


class Wsgi:
    """One WSGI app. ``faults`` collects, while the app runs, the exceptions that its framework turns into answers."""

    def __init__(self, app: WSGIApp, faults: Faults | None = None) -> None:
        self._app = app
        self._faults = faults or (lambda _: nullcontext())

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request. Raises what the app raises, also what its framework has made an answer of."""
        environ = environ_of(scope, (await receive())["body"])
        found: list[BaseException] = []
        with self._faults(found):
            await self._answer(environ, send)
        if found:
            raise found[0]

    async def _answer(self, environ: dict[str, Any], send: Send) -> None:
        head = _Head()
        with alarmed(session()):
            chunks = self._app(environ, head.start)
        try:
            with alarmed(session()):
                each = iter(chunks)
            while (chunk := _next(each)) is not _END:
                await head.send_before(send)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await head.send_before(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            with alarmed(session()):
                if (close := getattr(chunks, "close", None)) is not None:
                    close()


class _Head:
    """What the app has said so far by ``start_response`` and by the ``write`` that this returns."""

    def __init__(self) -> None:
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._written: list[bytes] = []
        self._sent = False

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
        """WSGI's start_response."""
        if exc_info is not None and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._status:
            raise RuntimeError("the app called start_response twice")
        self._status, self._headers = status, list(headers)
        return self._written.append

    async def send_before(self, send: Send) -> None:
        """Send what comes before the next chunk."""
        if not self._sent:
            if not self._status:
                raise RuntimeError("the app answered without calling start_response")
            encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers]
            await send({"type": "http.response.start", "status": int(self._status.split(" ")[0]), "headers": encoded})
            self._sent = True
        while self._written:
            await send({"type": "http.response.body", "body": self._written.pop(0), "more_body": True})


def environ_of(scope: Any, body: bytes) -> dict[str, Any]:
    """The request as WSGI's environ."""
    host, port = scope["server"] or ("localhost", 80)
    query = scope["query_string"].decode("latin-1")
    environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": query,
        "REQUEST_URI": scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": scope["client"][0] if scope["client"] else "",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope["scheme"],
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope["headers"]:
        _take_header(environ, name.decode("latin-1"), value.decode("latin-1"))
    return environ


def _take_header(environ: dict[str, Any], name: str, value: str) -> None:
    match name:
        case "content-type":
            environ["CONTENT_TYPE"] = value
        case "content-length":
            pass  # that of the body which we have
        case _ if "_" in name:
            pass  # it would pass for its twin with a hyphen
        case _:
            key = "HTTP_" + name.upper().replace("-", "_")
            before = environ.get(key)
            environ[key] = value if before is None else f"{before}{'; ' if name == 'cookie' else ','}{value}"


def _next(chunks: Iterator[bytes]) -> Any:
    with alarmed(session()):
        return next(chunks, _END)


def faults_of_flask(app: Any) -> Faults:
    """Flask makes a 500 of an exception, and tells a signal of it."""
    import flask

    @contextmanager
    def faults(found: list[BaseException]) -> Iterator[None]:
        def take(_: Any, exception: BaseException, **__: Any) -> None:
            found.append(exception)

        with flask.got_request_exception.connected_to(take, app):
            yield

    return faults
