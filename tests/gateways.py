"""A real gateway on a loopback port, and what speaks to it over raw sockets."""

import asyncio
import base64
import json
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from circuit_script.config import (
    GatewaySettings,
    GoHighLevelSettings,
    Settings,
    SourceSettings,
    StandardSettings,
)
from circuit_script.gateway.serve import run_gateway

PRIVATE = Ed25519PrivateKey.from_private_bytes(sha256(b"a throwaway key").digest())
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
MAX_BODY = 20_000
SOURCES = SourceSettings(
    gohighlevel=GoHighLevelSettings(public_key=PEM), standard=StandardSettings(secrets={"acme": (SECRET,)})
)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


def configured(folder, **gateway):
    gateway = {"port": 0, "max_body": MAX_BODY} | gateway
    return Settings(folder=folder, gateway=GatewaySettings(**gateway), sources=SOURCES)


@contextmanager
def running(url, folder, **gateway):
    """A gateway in a thread of its own; gives its port."""
    ready, place, failure = threading.Event(), {}, []

    async def main():
        place["loop"], place["stop"] = asyncio.get_running_loop(), asyncio.Event()

        def listening(address):
            place["port"] = int(address.rpartition(":")[2])
            ready.set()

        await run_gateway(configured(folder, **gateway), url, stop=place["stop"], on_ready=listening)

    def work():
        try:
            uvloop.run(main())
        except BaseException as error:
            failure.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(20)
    if failure:
        raise failure[0]
    try:
        yield place["port"]
    finally:
        place["loop"].call_soon_threadsafe(place["stop"].set)
        thread.join(20)
    assert not thread.is_alive()
    assert not failure


def raw(port, *parts, timeout=10.0, half_close=False):
    """Send the parts, read until the gateway closes."""
    with socket.create_connection(("127.0.0.1", port), timeout) as wire:
        with suppress(OSError):  # it may answer and close before it has read everything
            for part in parts:
                wire.sendall(part)
            if half_close:
                wire.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(OSError):
            while piece := wire.recv(65536):
                received += piece
    return received


def answers_in(received):
    """Every answer in what a connection received."""
    answers = []
    while received:
        head, separator, received = received.partition(b"\r\n\r\n")
        assert separator, head
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split(" ")[1])
        if status == 100:
            continue
        length = int(headers["content-length"])
        answers.append(Answer(status, headers, received[:length]))
        received = received[length:]
    return answers


def request(method, path, headers=(), body=b"", *, host="localhost"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in dict(headers).items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def send(port, *arguments, **options):
    (answer,) = answers_in(raw(port, request(*arguments, **options)))
    return answer


def signed(body):
    return {"X-GHL-Signature": base64.b64encode(PRIVATE.sign(body)).decode()}


def contact(id_, **fields):
    return json.dumps({"type": "ContactCreate", "locationId": "L1", "id": "C1", "webhookId": id_, **fields}).encode()


def post(port, body, headers=None, path="/webhooks/gohighlevel"):
    return send(port, "POST", path, signed(body) if headers is None else headers, body)


def assert_problem(answer, status=None, reason=None):
    assert answer.status == status if status else 400 <= answer.status < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
    assert answer.json["detail"]
    assert reason is None or answer.json["reason"] == reason
    assert b"Traceback" not in answer.body
    assert b".py" not in answer.body


def chunked_head(body):
    head = request("POST", "/webhooks/gohighlevel", signed(body)).partition(b"\r\n\r\n")[0]
    return head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"\r\n\r\n"
