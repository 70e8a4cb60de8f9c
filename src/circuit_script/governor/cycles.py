"""The loop breaker: an execution that asks the world the same thing again and again, and learns nothing by it, ends.

Who calls the world for an execution says so twice: ``note`` before the call leaves, ``answered`` when its answer is
there. A *turn* is a call that leaves after the last equal one was answered; equal calls that are on their way together
are one turn. An execution goes round in circles when a call was made ``repeats`` times since it last brought an answer
that it had not brought before, and is to be made once more. Then ``note`` raises LoopFound, whose ``said`` names the
cycle. What is no loop:

- a poll whose answers differ: each new answer begins the count anew;
- a poll whose answers are equal, but that waits (0.1 s and more, in which it asks nothing else) between its turns, and
  costs nothing: wall_time and callouts bound it;
- a free call beside work that gets on: a call that was never made before and is answered (not with a failure), or a
  free one that brings something new, begins the counts of all free calls anew;
- a question that is put to a model several times to vote on the answer: it has twice the repeats;
- a batch whose handler makes the same call for each record: the count is kept for each record that owns calls, and what
  belongs to no record may be repeated as often for each record of the batch;
- a call that is tried again because it failed: a failure weighs a quarter of an answer;
- work that gets on: ``changed`` (a write, a message, a POST) begins all counts anew, unless the very same was written
  before.

Spending that rises without a change of state is a loop, too: a call that costs money is ended at twice the repeats
also when its answers differ, and so is a conversation that grows while its model says the same, whatever it is told
(``told``).

A loop that costs money is LOOP, and is final; one of free calls alone is REPEATED, a breach like others.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from circuit_script.governor.limits import LOOP, REPEATED, LoopFound

REPEATS = 5
PAUSE = 0.1  # seconds between two turns of a poll
FAILURE = 0.25  # what a failed call weighs
PAID = 2  # times the repeats that a call may cost money without a change, whatever it answers
REMEMBERED = 64  # calls, to name a cycle, and to know when nothing was asked
LONGEST = 5  # calls of a cycle that are named

Key = tuple[int | None, bytes]

# The request of the handler that this task serves, and the latest one whose answer the handler knew as it asked: what
# it asks at once comes in one after the other. None: it is not known, then it is taken for one after the other.
request: ContextVar[tuple[int, int] | None] = ContextVar("request", default=None)


@dataclass(slots=True)
class _Call:
    """One call as it was made so far."""

    what: str
    turns: float = 0.0  # since an answer was new, that one counted
    paid: float = 0.0  # turns that cost money, whatever they were answered
    cost: float = 0.0
    epoch: int = 0  # the news that there were when the turns were counted
    bills: int = 0  # the paid calls that there were when the first of them was
    on_their_way: int = 0
    began: float = 0.0  # of the first that is on its way
    replies: set[bytes] = field(default_factory=set)
    failed: bool = False
    at: float = 0.0  # of the last answer
    answered: int = 0  # the request that got it
    fresh: bool = True  # it is on its way for another turn
    waited: bool = False


class Cycles:
    """The calls of one execution, as far as they come round."""

    __slots__ = ("_before", "_bills", "_calls", "_clock", "_free_news", "_news", "_records", "_repeats", "_said",
                 "_spans", "_written")  # fmt: skip

    def __init__(self, repeats: int, records: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeats = repeats
        self._records = max(1, records)
        self._clock = clock
        self._calls: dict[Key, _Call] = {}
        self._before: deque[Key] = deque(maxlen=REMEMBERED)
        self._spans: deque[tuple[float, float, int | None]] = deque(maxlen=REMEMBERED)  # of calls, and whose
        self._written: set[int] = set()
        self._news: Counter[int | None] = Counter()  # of each record, and of all under None
        self._free_news: Counter[int | None] = Counter()  # those that came with free calls
        self._bills = 0
        self._said: dict[Key, tuple[int, int, int]] = {}  # news, length of the conversation, times

    def note(
        self, fingerprint: bytes, what: str, *, cost: float = 0.0, owner: int | None = None, vote: bool = False
    ) -> None:
        """A call is about to leave. Raises LoopFound when it has come round too often; then it must not leave.

        ``fingerprint`` stands for the call with all its arguments; of a model call within a conversation, for the model
        and what was said since its last answer, as the history before that grows with each turn of a loop. ``what``
        names it for a person ("GET https://…", "model gpt-4o-mini"), ``cost`` is what it will cost, in US dollars;
        ``owner`` is the place of the record that it is made for; ``vote`` says that the call is all of a question, and
        not the next turn of a conversation.
        """
        key = owner, fingerprint
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call(what, epoch=self._news[owner], bills=self._bills)
        elif not call.on_their_way and _has_heard(call.answered):
            call.fresh = True
            call.waited = not cost and self._pause(call.at, owner) >= PAUSE
            if not call.waited:
                self._hold(key, call, PAID if vote else 1)
        if not call.on_their_way:
            call.began = self._clock()
        call.on_their_way += 1
        call.cost += cost
        self._bills += cost > 0
        self._before.append(key)

    def answered(self, fingerprint: bytes, reply: bytes | None, *, owner: int | None = None) -> None:
        """The answer of a call that was noted; ``reply`` is a hash of what it says (status and body, not headers, which
        tell the time), None for a failure: no answer, or a status of 400 and more."""
        call = self._calls.get((owner, fingerprint))
        if call is None:
            return  # `changed` has forgotten it meanwhile
        call.on_their_way = max(0, call.on_their_way - 1)
        call.at = self._clock()
        if (asked := request.get()) is not None:
            call.answered = max(call.answered, asked[0])
        if call.on_their_way:
            return
        self._spans.append((call.began, call.at, owner))
        if reply is not None and (not call.replies or (not call.cost and reply not in call.replies)):
            for whose in {owner, None}:
                self._news[whose] += 1
                self._free_news[whose] += not call.cost
        weight = FAILURE if reply is None else 1.0
        if call.cost and call.fresh:
            call.paid += weight
        call.failed = reply is None
        if reply is not None and reply not in call.replies:
            call.replies.add(reply)
            self._begin_anew(owner, call)
        if call.fresh and not call.waited:
            call.turns += weight
        call.fresh = False

    def told(self, conversation: bytes, length: int, answer: bytes, what: str, *, owner: int | None = None) -> None:
        """A model has given an answer, hashed, in a conversation that began like this and has so many messages now.

        Raises LoopFound when it has given it too often: as the conversation grew, without a change, and without a free
        call that brought anything new. Conversations side by side that began alike count as one.
        """
        key = owner, conversation + answer
        epoch = self._free_news[owner]
        news, longest, times = self._said.get(key, (epoch, 0, 0))
        if length <= longest:
            return
        times = times + 1 if news == epoch else 1
        self._said[key] = epoch, length, times
        if times > (ceiling := self._ceiling(owner) * PAID):
            said = f"{what} said the same again as its conversation grew, without a change of state"
            raise LoopFound(LOOP, times, ceiling, said)

    def changed(self, written: bytes = b"") -> None:
        """The execution has changed something, ``written`` tells what: who writes the same again changes nothing."""
        if not self._calls:
            return
        seen = hash(written)
        if seen in self._written:
            return
        self._written.add(seen)
        self._calls = {key: call for key, call in self._calls.items() if call.on_their_way}
        for call in self._calls.values():
            call.turns = call.paid = 0.0
        self._before.clear()
        self._said.clear()

    def _ceiling(self, owner: int | None) -> int:
        return self._repeats * (self._records if owner is None else 1)

    def _begin_anew(self, owner: int | None, call: _Call) -> None:
        call.turns, call.epoch, call.bills = 0.0, self._news[owner], self._bills - (call.cost > 0)

    def _pause(self, since: float, owner: int | None) -> float:
        """Seconds in which nothing was asked for this record: the time that other calls take is no waiting."""
        now = self._clock()
        pause, until = now - since, since
        for began, ended, whose in sorted((each for each in self._spans if each[0] >= since), key=lambda each: each[0]):
            if whose == owner or whose is None or owner is None:
                pause -= max(0.0, ended - max(began, until))
                until = max(until, ended)
        return pause

    def _hold(self, key: Key, call: _Call, times: int) -> None:
        ceiling = self._ceiling(key[0])
        if not call.cost and call.epoch != self._news[key[0]]:
            self._begin_anew(key[0], call)
        if call.turns >= ceiling * times:
            why = "failed each time" if call.failed else "brought nothing new"
            kind = LOOP if self._bills > call.bills else REPEATED
            said = f"{self._cycle(key)} came round again and {why}"
            raise LoopFound(kind, round(call.turns) + 1, ceiling * times, said)
        if call.paid >= ceiling * PAID:
            said = f"{self._cycle(key)} came round again and cost ${call.cost:.4f} without a change of state"
            raise LoopFound(LOOP, round(call.paid) + 1, ceiling * PAID, said)

    def _cycle(self, key: Key) -> str:
        """The calls from one turn to the next, if the turn before had the same."""
        before = list(self._before)
        places = [place for place, each in enumerate(before) if each == key][-2:]
        cycle = before[places[-1] :]
        if len(places) < 2 or before[places[0] : places[1]] != cycle:
            cycle = [key]
        names = [self._calls[each].what for each in cycle[:LONGEST] if each in self._calls]
        return " → ".join([*names, *(["…"] if len(cycle) > LONGEST else [])])


def _has_heard(answered: int) -> bool:
    """Whether the handler knew the answer to that request as it asked."""
    asked = request.get()
    return asked is None or asked[1] >= answered
