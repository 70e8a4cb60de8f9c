"""One execution's calls of models, on the trusted side: counted, reserved, made, settled, journaled.

A call takes these steps, and an exception or a kill between any two of them loses no money: the worst case is taken
from the execution's own limits (in memory, before anything is awaited) and reserved in the budgets (one transaction);
then the provider is asked; then the cost takes the place of the reservation. A reservation is open for nothing but the
call itself: who waits in order to try again has settled before, and reserves anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import psycopg
import structlog

from circuit_script.clock import uuid7
from circuit_script.db.pool import unavailable
from circuit_script.errors import RequestRefused
from circuit_script.execution.broker.choices import Choices, calls_in, calls_of
from circuit_script.execution.broker.judged import MOST_SAID, Judged
from circuit_script.execution.broker.model_streams import END, SILENT, Stream
from circuit_script.execution.broker.outside import Journal
from circuit_script.execution.outcome import Work, spread
from circuit_script.governor import LoopFound, Meter
from circuit_script.governor.budget import Full, Reservation, Settled
from circuit_script.governor.money import NANO, nanos
from circuit_script.llm.models import Models, Plan, Room
from circuit_script.llm.provider import Refusal, Said, Tokens, tokens_of
from circuit_script.llm.request import Asked, read
from circuit_script.llm.words import Words, digest
from circuit_script.telemetry.spans import note

log = structlog.get_logger()
T = TypeVar("T")

ATTEMPTS = 3
BACKOFF = 0.5  # seconds before the second attempt; doubled after each
SPARE = 0.5  # seconds that must be left after a wait, or it is not worth waiting
CUTS = 3  # times that an answer is cut to what a budget still has, while others reserve, too
LONGER = "Say max_tokens, then the call leaves only if all of it fits; or raise what is used up: circuit-script spend"
ENDED = "the execution ended while the call was under way"


@dataclass(slots=True)
class Held:
    """A call for which money is reserved: in the execution's limits by ``tokens`` and ``nanos``, and in the budgets."""

    plan: Plan
    reservation: Reservation
    tokens: int
    nanos: int


@dataclass(frozen=True, slots=True)
class _Call:
    """What all attempts at one call have in common. ``asked`` is what the handler asked, ``sent`` what is sent."""

    asked: Asked
    sent: Asked
    model: str
    owner: int | None
    record: str | None


class Turn:
    """One answer of a model, as far as it has choices in it."""

    def __init__(self, choices: Choices, asked: Asked, given: Mapping[str, Any], judged: Judged | None = None) -> None:
        self._choices = choices
        self._judged = judged
        self._messages = asked.body["messages"]
        self._said: list[str] = []
        self._room = MOST_SAID
        self._marks = given.get("agent") is True
        self._outputs = frozenset(map(str, given.get("outputs") or ())) | (set() if self._marks else forced(asked.body))
        self._external = frozenset(map(str, given.get("external") or ()))
        self._results = set(choices.asked(asked.body["messages"]))
        self._seen: set[tuple[str, str]] = set()

    def answered(self, body: bytes) -> None:
        """The whole of it."""
        self._choices.over(self._results)
        self._called(calls_in(body))

    def piece(self, choices: Any) -> None:
        """A piece of it, before the child gets it."""
        if self._judged is not None and self._room > 0:
            for text in words_in(choices):
                self._said.append(text)
                self._room -= len(text)
        calls = [each for each in calls_of(choices) if each not in self._seen]
        self._seen.update(calls)  # some providers repeat it in each piece
        if calls:
            self.over()  # first: a provider may give its ids again
            self._called(calls)

    def _called(self, calls: Sequence[tuple[str, str]]) -> None:
        """Tools that no agent runs are run by the author's code, which nobody marks."""
        for each in calls:
            marks = self._marks and each[1] not in self._external
            self._choices.calls([each], outputs=self._outputs, marks=marks)

    def over(self) -> None:
        """A stream is at its end, or calls again."""
        self._choices.over(self._results)
        self._results.clear()

    def ended(self) -> None:
        """A stream is at its end."""
        self.over()
        if self._judged is not None:
            self._judged.heard("".join(self._said), self._messages)


def words_in(choices: Any) -> list[str]:
    """The words of a piece of a stream."""
    deltas = [each.get("delta") for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    words = [each.get("content") for each in deltas if isinstance(each, dict)]
    return [each for each in words if isinstance(each, str)]


def forced(body: Mapping[str, Any]) -> set[str]:
    """The tool that the author lets the model call in any case: a form for its answer, and no choice."""
    choice = body.get("tool_choice")
    function = choice.get("function") if isinstance(choice, dict) else None
    return {str(function["name"])} if isinstance(function, dict) and function.get("name") else set()


class BudgetFull(Exception):
    """The call does not fit into these budgets; ``after`` are the seconds after which it is to be tried again."""

    def __init__(self, full: list[Full], after: float | None) -> None:
        self.full = full
        self.after = after


class ModelCalls:
    """Calls of models for one execution. ``deferred`` are the seconds until the last one may be made that found no
    money, None where it is not put off; ``put_off`` has those of all."""

    __slots__ = ("_asked", "_choices", "_journal", "_judged", "_meter", "_models", "_nanos", "_opened", "_remaining",
                 "_streams", "_work", "deferred", "put_off")  # fmt: skip

    def __init__(
        self,
        work: Work,
        *,
        meter: Meter,
        journal: Journal,
        models: Models | None,
        remaining: Callable[[], float],
        choices: Choices | None = None,
        judged: Judged | None = None,
    ) -> None:
        self._judged = judged
        self._choices = choices or Choices(work)
        self.deferred: float | None = None
        self.put_off: set[float] = set()
        self._work = work
        self._meter = meter
        self._journal = journal
        self._models = models
        self._remaining = remaining
        self._nanos = 0  # spent and reserved by this execution
        self._asked: dict[tuple[int | None, bytes], int] = {}
        self._streams: dict[int, Stream] = {}
        self._opened = 0

    def close(self) -> None:
        """The execution is over: what still streams is broken off, and counts at its worst case."""
        for stream in self._streams.values():
            stream.task.cancel()
        self._streams.clear()

    async def llm(self, given: dict[str, Any]) -> dict[str, Any]:
        """Ask a model. Answers {"body"} with the whole completion, {"stream"} with the number of a stream, {"full"}
        when there is no money for it, or {"refused"} with detail, cure and page. Raises LimitExceeded,
        DatabaseUnavailable."""
        try:
            return await self._ask(given)
        except BudgetFull as full:
            return {"full": self._told(full)}
        except RequestRefused as refused:
            return {"refused": [refused.detail, refused.cure, refused.page]}

    async def _ask(self, given: dict[str, Any]) -> dict[str, Any]:
        models = self._known()
        asked = read(given["request"])
        owner = self._work.owner(given.get("record"))
        if owner is None and len(self._work.records) == 1:
            owner = 0
        sent = await self._judged_request(given["request"], asked)
        call = _Call(asked, sent, asked.model or models.default, owner, self._id_of(owner))
        turn = Turn(self._choices, asked, given, self._judged)
        if asked.stream:
            return {"stream": await self._open(call, self._noted(call), turn)}
        key = self._key(call)
        if (known := self._journal.find(owner, key)) is not None:
            turn.answered(known)
            if (paid := getattr(self._journal, "paid", None)) is not None:
                paid(self._price_of(call, known))
            return {"body": known}
        answered = self._noted(call)
        said = await self._attempts(call, self._complete, answered)
        turn.answered(said.body)
        answered(said.words)
        body = said.body if self._judged is None else self._judged.answer(said.body, asked.body["messages"])
        await self._journal.keep(owner, key, body)
        self._meter.go_on()  # it may have been the turn of a loop
        return {"body": body}

    def _price_of(self, call: _Call, body: bytes) -> float:
        """What an answer cost when it was asked for, in dollars, as far as it says so."""
        with suppress(msgspec.DecodeError, RequestRefused):  # by now nobody may serve this model
            answer = msgspec.json.decode(body)
            if isinstance(answer, dict) and (tokens := tokens_of(answer, spoke=False)) is not None:
                price = self._known().plan(call.sent, call.model).price
                return price.cost(tokens.input, tokens.output, tokens.cached, tokens.written) / NANO
        return 0.0

    async def _judged_request(self, request: Mapping[str, Any], asked: Asked) -> Asked:
        """What is sent of a request. Raises RequestRefused."""
        if self._judged is None:
            return asked
        messages = await self._judged.request(asked.body["messages"])
        return asked if messages is None else read({**request, "messages": messages})

    async def llm_next(self, given: dict[str, Any]) -> dict[str, Any]:
        """The next events of a stream. The last ones are "over"; one that broke off is over with {"refused"}."""
        number = int(given["stream"])
        stream = self._streams.get(number)
        if stream is None:
            raise RequestRefused(f"there is no stream {number}.")
        chunks = await stream.next()
        if chunks[-1] != END:
            return {"chunks": chunks, "over": None}
        del self._streams[number]
        broken = [f"the model's answer broke off: {stream.broken}.", "", "llm-provider"] if stream.broken else None
        return {"chunks": chunks[:-1], "over": {"refused": broken}}

    async def llm_close(self, given: dict[str, Any]) -> None:
        """Nobody wants the rest of a stream. What of it was made is billed, and nobody says how much that is."""
        if (stream := self._streams.pop(int(given["stream"]), None)) is not None:
            stream.task.cancel()

    # -- one call ---------------------------------------------------------------------------------

    def _noted(self, call: _Call) -> Callable[[Words | None], None]:
        """Count the call, and hold it against those before it. What is returned hears of its answer, None for none; who
        is in a loop then hears of it with the next request. Raises LimitExceeded, RequestRefused."""
        plan = self._known().plan(call.sent, call.model).within(self._room())
        fingerprint = digest(msgspec.json.encode([call.model]) + call.asked.last_words)
        meter, asked, owner, what = self._meter, call.asked, call.owner, f"model {call.model}"
        meter.note(fingerprint, what, cost=plan.worst / NANO, owner=owner, vote=asked.begins)
        meter.spend("llm_calls")

        def answered(said: Words | None) -> None:
            meter.cycles.answered(fingerprint, None if said is None else said.whole, owner=owner)
            if said is not None and not asked.begins:
                with suppress(LoopFound):  # the meter remembers it
                    meter.told(asked.opening, asked.length, said.asks, what, owner=owner)

        return answered

    async def _attempts(
        self, call: _Call, act: Callable[[Held], Awaitable[T]], answered: Callable[[Words | None], None]
    ) -> T:
        """Try until it is answered. Tried again is only what was certainly not billed."""
        delay = BACKOFF
        try:
            for attempt in range(1, ATTEMPTS + 1):
                held = await self._reserved(call)
                try:
                    return await act(held)
                except Refusal as refusal:
                    wait = max(delay, refusal.after or 0.0)
                    again = refusal.passing and not refusal.billed and attempt < ATTEMPTS
                    if not again or wait + SPARE > self._remaining():
                        raise _refused(refusal, held) from None
                    delay *= 2
                    await asyncio.sleep(wait)
        except BaseException:
            answered(None)
            raise
        raise AssertionError("the last attempt returns or raises")

    async def _complete(self, held: Held) -> Said:
        """Ask for the whole answer, and settle. Raises Refusal."""
        try:
            patience = max(0.05, self._remaining())
            async with asyncio.timeout(patience):
                said = await held.plan.provider.complete(held.plan.body, patience)
        except Refusal as refusal:
            await self.settle(held, None, None, refusal)
            raise
        except TimeoutError:
            late = Refusal("the answer did not come in time", billed=True, passing=False)
            await self.settle(held, None, None, late)
            raise late from None
        except BaseException as error:
            self.settle_later(held, f"{ENDED} ({type(error).__name__})")
            raise
        silent = Refusal(SILENT, billed=True, passing=False)
        await self.settle(held, said.tokens, said.model, silent)
        if said.words.cut and (shortened := held.plan.shortened):
            raise RequestRefused(f"model {held.plan.model}: {shortened}.", cure=LONGER, page="budget-exceeded")
        return said

    async def _open(self, call: _Call, answered: Callable[[Words | None], None], turn: Turn) -> int:
        """Begin a stream. Its number, once the provider has begun to answer."""

        def over(said: Words | None) -> None:
            if said is not None:
                turn.ended()
            answered(said)

        async def begin(held: Held) -> Stream:
            mask = None if self._judged is None else self._judged.streaming()
            stream = Stream(held.plan, _StreamSettler(self, held), max(0.05, self._remaining()), over, turn.piece, mask)
            try:
                await stream.begun()
            except BaseException:
                stream.task.cancel()
                raise
            return stream

        stream = await self._attempts(call, begin, answered)
        self._opened += 1
        self._streams[self._opened] = stream
        return self._opened

    # -- money ------------------------------------------------------------------------------------

    def _room(self) -> Room:
        """What the execution itself may still use."""
        tokens = self._meter.ceiling("llm_tokens") - self._meter.usage.llm_tokens
        return Room(int(tokens), nanos(self._meter.ceiling("llm_cost")) - self._nanos)

    async def _reserved(self, call: _Call) -> Held:
        """Reserve the worst case everywhere. Raises BudgetFull, LimitExceeded."""
        models = self._known()
        policy = models.at_ceiling(self._work.tenant, self._work.at_ceiling)
        cheaper = models.cheaper if policy == "cheaper" and models.cheaper != call.model else ""
        full: list[Full] = []
        least = 0
        for model in filter(None, (call.model, cheaper)):
            plan = models.plan(call.sent, model).within(self._room())
            cut = "no" if cheaper and model == call.model else "last" if policy == "defer" else "yes"
            held, full = await self._fitted(call, plan, cut)
            if held is not None:
                return held
            least = plan.within(Room(0, 0)).worst
        after = None
        if policy == "defer" and all(least <= each.ceiling for each in full):  # else no reset makes room for it
            after = spread(max(each.resets_in for each in full))
            self.put_off.add(after)
        self.deferred = after
        raise BudgetFull(full, after)

    async def _fitted(self, call: _Call, plan: Plan, cut: str) -> tuple[Held | None, list[Full]]:
        """Reserve; where the answer may be ``cut`` ("yes", or "last": only if no reset makes room for all of it), in
        the length that the budgets still have."""
        held, full = await self._try(call, plan)
        may = cut == "yes" or (cut == "last" and any(plan.worst > each.ceiling for each in full))
        for _ in range(CUTS if may else 0):
            if held is not None:
                break
            left = min(each.left for each in full)
            shorter = plan.within(Room(self._room().tokens, left))
            if shorter.worst >= plan.worst or shorter.worst > left:
                break
            plan = shorter
            held, full = await self._try(call, plan)
        return held, full

    async def _try(self, call: _Call, plan: Plan) -> tuple[Held | None, list[Full]]:
        held = self._take(call, plan)
        models = self._known()
        ceilings = models.ceilings(self._work.tenant, self._work.budget)
        reserving = asyncio.ensure_future(models.money.reserve(held.reservation, ceilings))
        try:
            full = await asyncio.shield(reserving)
        except psycopg.OperationalError as error:
            self._give_back(held, 0, 0)
            models.settling.void_later(held.reservation)
            raise unavailable(error) from None
        except BaseException:
            self._give_back(held, 0, 0)
            models.settling.void_later(held.reservation, reserving)
            raise
        if full:
            self._give_back(held, 0, 0)
            return None, full
        return held, []

    def _take(self, call: _Call, plan: Plan) -> Held:
        """Count the worst case in the execution's own limits. Raises LimitExceeded; nothing is counted then."""
        meter, tokens, worst = self._meter, plan.tokens, plan.worst
        meter.hold("llm_tokens", meter.usage.llm_tokens + tokens, meter.ceiling("llm_tokens"))
        ceiling = meter.ceiling("llm_cost")
        if self._nanos + worst > nanos(ceiling):  # in whole nano-dollars: sums of floats would not be exact
            meter.hold("llm_cost", max((self._nanos + worst) / NANO, ceiling * (1 + 1e-9)), ceiling)
        meter.usage.llm_tokens += tokens
        self._spend(worst)
        work = self._work
        reservation = Reservation(
            uuid7(), work.execution, work.tenant, work.handler, call.record, plan.provider.name, plan.model, call.model,
            tokens, worst,
        )  # fmt: skip
        return Held(plan, reservation, tokens, worst)

    def _give_back(self, held: Held, tokens: int, cost: int) -> None:
        """Put what was used in the place of what was taken."""
        self._meter.usage.llm_tokens += tokens - held.tokens
        self._spend(cost - held.nanos)
        held.tokens, held.nanos = tokens, cost

    def _spend(self, amount: int) -> None:
        self._nanos += amount
        self._meter.usage.llm_cost = self._nanos / NANO

    async def settle(self, held: Held, tokens: Tokens | None, model: str | None, refusal: Refusal) -> None:
        """Settle at the cost of these tokens; without them at nothing, or at the worst case where ``refusal`` may be
        billed."""
        await self._known().settling.settle(held.reservation.id, self._how(held, tokens, model, refusal))

    def settle_later(self, held: Held, reason: str) -> None:
        """The execution is at its end, so its own limits do not matter any more."""
        self._known().settling.settle_later(held.reservation.id, Settled(None, reason=reason))

    def _how(self, held: Held, tokens: Tokens | None, model: str | None, refusal: Refusal) -> Settled:
        note(provider=held.plan.provider.name, model=model or held.plan.model)
        if tokens is None:
            if not refusal.billed:
                self._give_back(held, 0, 0)
            return Settled(None if refusal.billed else 0, answered=model, reason=refusal.reason)
        price = held.plan.price
        cost = price.cost(tokens.input, tokens.output, tokens.cached, tokens.written)
        reason = None
        if cost > held.reservation.worst:
            reason = "it cost more than its worst case"
            log.error("llm.over_worst_case", call=str(held.reservation.id), model=held.plan.model, cost=cost / NANO)
        self._give_back(held, tokens.input + tokens.output, cost)
        note(tokens_in=tokens.input, tokens_out=tokens.output, tokens_cached=tokens.cached, cost=cost / NANO)
        return Settled(cost, tokens.input, tokens.output, tokens.cached, model, reason)

    # -- words ------------------------------------------------------------------------------------

    def _known(self) -> Models:
        if self._models is None:
            raise RequestRefused("there are no models here: a dry run makes no model calls.", page="llm-provider")
        return self._models

    def _key(self, call: _Call) -> bytes:
        """The key of the journal. Equal calls of one record are counted, as each may get another answer."""
        fingerprint = digest(b"llm" + call.asked.fingerprint(call.model))
        times = self._asked[call.owner, fingerprint] = self._asked.get((call.owner, fingerprint), 0) + 1
        return fingerprint + times.to_bytes(4, "big")

    def _id_of(self, owner: int | None) -> str | None:
        identifier = None if owner is None else self._work.records[owner].get("id")
        return None if identifier is None else str(identifier)

    def _told(self, full: BudgetFull) -> dict[str, Any]:
        first = full.full[0]
        return {
            "said": f"{first.said(self._work.tenant, self._work.handler)}.",
            "scope": first.scope,
            "ceiling": first.ceiling / NANO,
            "spent": first.spent / NANO,
            "reserved": first.reserved / NANO,
            "resets_at": first.resets_at.timestamp(),
            "after": full.after,
        }


class _StreamSettler:
    """Settles one stream's call."""

    def __init__(self, calls: ModelCalls, held: Held) -> None:
        self._calls = calls
        self._held = held

    async def settle(self, tokens: Tokens | None, model: str | None, refusal: Refusal) -> None:
        await self._calls.settle(self._held, tokens, model, refusal)

    def settle_later(self, reason: str) -> None:
        self._calls.settle_later(self._held, reason)


# Of the class, not of the instance: one that holds its own methods waits for the garbage collector.
VERBS: Mapping[str, Callable[[ModelCalls, dict[str, Any]], Awaitable[Any]]] = {
    "llm": ModelCalls.llm,
    "llm_next": ModelCalls.llm_next,
    "llm_close": ModelCalls.llm_close,
}


def _refused(refusal: Refusal, held: Held) -> RequestRefused:
    wait = f" It asks to wait {refusal.after:g} s." if refusal.after else ""
    return RequestRefused(f"model {held.plan.model}: {refusal.reason}.{wait}", page="llm-provider")
