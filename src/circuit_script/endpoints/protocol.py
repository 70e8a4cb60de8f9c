"""What a gateway and its host's worker say to each other: msgpack messages behind a four-byte length.

A connection belongs to its client, who greets with Hello (not answered). Then either

- Watch: the worker sends News now, and again whenever another release goes live, until the connection ends; or
- Calls, one after the other. Each is answered by one Answer, or by Head, Chunks and End when it is streamed. Who hangs
  up closes the connection. The socket's own buffer is the back-pressure: a client that does not read stops the worker's
  writing, not its work.

A worker whose connections are all used closes the one that was unused for longest, or, if all are busy, the new one;
either is told so by an Answer of 503 first. To a call that it crosses, that is the answer: nothing was executed.

Everything a client is told is ready to be passed on: problems are rendered, the closing event of a stream is a Chunk.
"""

from __future__ import annotations

import struct

import msgspec

from circuit_script.execution.outcome import EndpointSpec, HttpRequest

VERSION = 2
MAX_FRAME = 32 * 1024 * 1024  # bytes

LENGTH = struct.Struct("<I")  # in front of each message
_encoder = msgspec.msgpack.Encoder()


class ProtocolError(Exception):
    """The other side does not speak this protocol."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The first message of a connection. Another version gets an Answer of 503, and the connection ends."""

    version: int = VERSION


class Watch(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Asks for News."""


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """One request to an endpoint, for one tenant, whom the client has authenticated.

    An empty ``tenant`` comes from a client without a database (an author's application under gunicorn): the worker
    authenticates it by the request's API key, as the endpoint asks.
    ``endpoint`` is the handler's name; empty, it is found by the request's method and path. ``seconds`` are what is
    left of its deadline (0: the endpoint's own); ``key`` is the caller's Idempotency-Key. ``auth`` is what the endpoint
    asked for when the call was admitted: the release that is live by now may ask for more.
    """

    endpoint: str
    tenant: str
    request: HttpRequest
    seconds: float = 0.0
    key: str | None = None
    auth: str = "key"


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """One endpoint of the live release."""

    name: str
    spec: EndpointSpec


class News(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """What the live release offers, ``@endpoint`` functions first; ``openapi`` is a JSON document, or empty."""

    release: str
    offers: list[Offer]
    openapi: bytes = b""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A whole answer: what it says is committed, or it is a problem. Without hop-by-hop headers."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Head(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A streamed answer begins."""

    status: int
    headers: list[tuple[str, str]]


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A piece of a streamed answer."""

    body: bytes


class End(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """A streamed answer ends. One that is not ``complete`` must reach its caller as broken off."""

    complete: bool = True


ToWorker = Hello | Watch | Call
ToClient = News | Answer | Head | Chunk | End

to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)


def pack(message: ToWorker | ToClient) -> bytes:
    """One frame: length and message. Raises ProtocolError when it is too long."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"a message of {len(body):,} bytes is over the {MAX_FRAME:,} that one may have")
    return LENGTH.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """How many bytes follow a frame's four-byte head. Raises ProtocolError for a length over the bound."""
    size: int = LENGTH.unpack(head)[0]
    if size > MAX_FRAME:
        raise ProtocolError(f"a message claims {size:,} bytes")
    return size


def read_request(body: bytes) -> ToWorker:
    """A client's message. Raises ProtocolError."""
    try:
        return to_worker.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(str(error)) from None


def read_answer(body: bytes) -> ToClient:
    """The worker's message. Raises ProtocolError."""
    try:
        return to_client.decode(body)
    except msgspec.DecodeError as error:
        raise ProtocolError(str(error)) from None
