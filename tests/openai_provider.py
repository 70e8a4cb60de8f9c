"""A provider that speaks OpenAI's chat completions over real HTTP, and bills what it makes.

A test says by ``behave`` what becomes of each request; ``billed`` is what the provider charges, in nano-dollars.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import listening

IN, OUT = 1_000, 10_000  # nano-dollars of a token: $1 and $10 per million


@dataclass(frozen=True)
class Do:
    """What becomes of one request. ``status`` 200 answers ``text`` with these counts of tokens; ``cut`` breaks off a
    stream after so many pieces, another answer before so many bytes of its end, and 0 before the head; ``wait`` is an
    event to wait for before answering, ``between`` before each piece."""

    text: str = "Hello there, friend!"
    tokens_in: int = 10
    tokens_out: int = 5
    cached: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    usage: bool = True
    cut: int | None = None
    wait: asyncio.Event | None = None
    between: asyncio.Event | None = None
    tool: tuple[str, dict[str, Any]] | None = None
    raw: bytes | None = None  # a whole answer, or the first event of a stream


@dataclass
class Provider:
    """The server. ``asked`` are the requests' bodies, ``keys`` what they were authorised with."""

    behave: Callable[[dict[str, Any]], Do] = lambda asked: Do()
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    chunks: list[Any] = field(default_factory=list)
    billed: int = 0
    running: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *rest = head.split("\r\n")
                headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest if each)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                assert line.startswith("POST /v1/chat/completions ")
                self.asked.append(body)
                self.keys.append(headers.get("authorization"))
                self.running += 1
                try:
                    if not await self._answer(self.behave(body), body, writer):
                        return
                finally:
                    self.running -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the last is the end of the test
        finally:
            writer.close()

    async def _answer(self, do: Do, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        if do.status == 200:
            made = min(do.tokens_out, _most(body))
            self.billed += (do.tokens_in * IN + made * OUT) * body.get("n", 1)
        if do.wait is not None:
            await do.wait.wait()
        if do.cut == 0:
            return False
        if do.status != 200:
            said = {
                "error": do.error or {"message": "it is too much", "type": "server_error", "param": None, "code": None}
            }
            writer.write(_response(do.status, json.dumps(said).encode(), **do.headers))
        elif body.get("stream"):
            return await self._stream(do, body, writer, made)
        else:
            answer = _completion(do, body, made)
            self.answers.append(answer)
            whole = _response(200, do.raw if do.raw is not None else json.dumps(answer).encode())
            writer.write(whole if do.cut is None else whole[: len(whole) - do.cut])
        await writer.drain()
        return do.cut is None

    async def _stream(self, do: Do, body: dict[str, Any], writer: asyncio.StreamWriter, made: int) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        words = [each + " " for each in do.text.split(" ")]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": each} for each in words)]
        if do.tool is not None:
            deltas = _tool_deltas(*do.tool)
        ended = _chunk(body, [_choice({}, _end(do, body))])
        chunks = [*(_chunk(body, [_choice(delta, None)]) for delta in deltas), ended]
        if do.usage and body["stream_options"]["include_usage"]:
            chunks.append({**_chunk(body, []), "usage": _usage(do, made)})
        self.chunks += chunks
        if do.raw is not None:
            writer.write(b"data: " + do.raw + b"\n\n")
        for sent, chunk in enumerate(chunks, 1):
            if do.cut is not None and sent > do.cut:
                return False
            if do.between is not None:
                await do.between.wait()
            writer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            await writer.drain()
        if do.cut is None:
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        return False


def _response(status: int, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "content-type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _usage(do: Do, made: int) -> dict[str, Any]:
    return {
        "prompt_tokens": do.tokens_in,
        "completion_tokens": made,
        "total_tokens": do.tokens_in + made,
        "prompt_tokens_details": {"cached_tokens": do.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def _completion(do: Do, body: dict[str, Any], made: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": do.text, "refusal": None}
    if do.tool is not None:
        name, arguments = do.tool
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": _fresh("call"), "type": "function", "function": function}
        message |= {"content": None, "tool_calls": [call]}
    answer: dict[str, Any] = {
        "id": _fresh("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _end(do, body)}],
    }
    return {**answer, "usage": _usage(do, made)} if do.usage else answer


def _most(body: dict[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body["max_tokens"])


def _end(do: Do, body: dict[str, Any]) -> str:
    if do.tokens_out > _most(body):
        return "length"
    return "stop" if do.tool is None else "tool_calls"


def _fresh(kind: str) -> str:
    """An id as OpenAI makes one, new each time."""
    return f"{kind}-{uuid.uuid4().hex}"


def _tool_deltas(name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """A call of a tool, its arguments cut at another place each time."""
    whole, identifier = json.dumps(arguments), _fresh("call")
    at = int(identifier[-4:], 16) % (len(whole) + 1)
    head: dict[str, Any] = {"id": identifier, "type": "function", "function": {"name": name, "arguments": ""}}
    pieces: list[dict[str, Any]] = [{"function": {"arguments": piece}} for piece in (whole[:at], whole[at:])]
    calls = [{"tool_calls": [{"index": 0, **each}]} for each in (head, *pieces)]
    return [{"role": "assistant", "content": None}, *calls]


def _choice(delta: dict[str, Any], end: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": end}


def _chunk(body: dict[str, Any], choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
        "choices": choices,
    }


@contextlib.asynccontextmanager
async def providing(behave: Callable[[dict[str, Any]], Do] = lambda asked: Do()) -> AsyncIterator[Provider]:
    provider = Provider(behave)
    async with listening(provider.serve) as port:
        provider.url = f"http://127.0.0.1:{port}/v1"
        yield provider
