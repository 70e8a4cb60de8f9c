"""Who connects to the dashboard and says nothing, or never ends, is not waited for."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn

from circuit_script.dashboard import patient
from circuit_script.web_server import serve


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def test_heads_end_and_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "PATIENCE", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    ready, stop = asyncio.Event(), asyncio.Event()
    config = uvicorn.Config(
        _app, loop="none", http=patient.PatientProtocol, ws="none", lifespan="off", log_config=None,
        h11_max_incomplete_event_size=patient.LONGEST_HEAD,
    )  # fmt: skip
    serving = asyncio.create_task(serve(config, listener, stop, lambda _: ready.set()))
    await ready.wait()
    ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for said, told in ((b"", b""), (b"GET / HTTP/1.1\r\nHo", b""), (ask + b"GET / HT", b"200"), (ask, b"200")):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(said)
        answer = b""
        try:
            async with asyncio.timeout(30):
                while part := await reader.read(1000):
                    answer += part
        except ConnectionResetError:
            pass  # it was cut
        assert answer[9:12] == told
        writer.close()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * patient.LONGEST_HEAD * 2)
    assert b"400" in await reader.readline()
    writer.close()
    stop.set()
    await serving
    listener.close()
