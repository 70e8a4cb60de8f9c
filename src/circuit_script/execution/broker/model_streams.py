"""A model's answer that comes piece by piece: a task reads it, and the child pulls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from circuit_script.execution.broker.masking import StreamMask
from circuit_script.llm.models import Plan
from circuit_script.llm.provider import Refusal, Tokens, chunk_of, tokens_of
from circuit_script.llm.words import Pieces, Words

QUEUE = 64  # events that wait for the child; then the provider waits
END = b""  # stands for the end: an event has a body

SILENT = "the answer does not say how many tokens it used"


class Settler(Protocol):
    """Settles the call of a stream."""

    async def settle(self, tokens: Tokens | None, model: str | None, refusal: Refusal) -> None: ...

    def settle_later(self, reason: str) -> None: ...


class Stream:
    """``broken`` says why it ended before its end. ``over`` is called once with what was said, None when it broke
    off. What it cost is settled before the child hears of the end. ``heard`` gets the choices of each event before
    the child does, and ``mask`` what it gets."""

    def __init__(
        self,
        plan: Plan,
        settler: Settler,
        timeout: float,
        over: Callable[[Words | None], None],
        heard: Callable[[Any], None] = lambda choices: None,
        mask: StreamMask | None = None,
    ) -> None:
        self._mask = mask
        self._heard = heard
        self.broken = ""
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE)
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun.add_done_callback(lambda begun: begun.cancelled() or begun.exception())
        self.task = asyncio.create_task(self._read(plan, settler, timeout, over))

    def begun(self) -> Awaitable[None]:
        """Wait until the provider begins to answer. Raises Refusal when it does not; then it is settled."""
        return asyncio.shield(self._begun)

    async def next(self) -> list[bytes]:
        """What came since, at least one; END is the last."""
        chunks = [await self._queue.get()]
        while not self._queue.empty():
            chunks.append(self._queue.get_nowait())
        return chunks

    async def _read(self, plan: Plan, settler: Settler, timeout: float, over: Callable[[Words | None], None]) -> None:
        counted: Tokens | None = None
        model: str | None = None
        whole = False  # whether ``counted`` is the last word
        said = Pieces()
        refusal = Refusal(SILENT, billed=True, passing=False)
        try:
            async with asyncio.timeout(timeout), plan.provider.streamed(plan.body, timeout) as events:
                self._begun.set_result(None)
                async for data in events:
                    chunk = chunk_of(data)
                    said.add(chunk.get("choices"))
                    self._heard(chunk.get("choices"))
                    if isinstance(chunk.get("usage"), dict):
                        counted, whole = tokens_of(chunk, spoke=said.spoke), not chunk.get("choices")
                    model = str(chunk["model"])[:200] if chunk.get("model") else model
                    for event in [data] if self._mask is None else self._mask.events(data, chunk):
                        await self._queue.put(event)
            whole = counted is not None
        except Refusal as broken:
            refusal = broken
            self.broken = broken.reason
        except TimeoutError:
            self.broken = "the answer did not come in time"
            refusal = Refusal(self.broken, billed=True, passing=False)
        except BaseException as error:
            settler.settle_later(f"the stream was not read to its end ({type(error).__name__})")
            over(None)
            raise
        await settler.settle(counted if whole else None, model, refusal)
        if not self._begun.done():
            self._begun.set_exception(refusal)
            return
        words = said.words()
        if words.cut and not self.broken:
            self.broken = plan.shortened
        over(None if self.broken else words)
        for event in [] if self._mask is None else self._mask.rest():
            await self._queue.put(event)
        await self._queue.put(END)
