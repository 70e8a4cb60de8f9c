"""Judges what events bring before a handler sees it: every text of every record, by the Judgment Protocol.

Most records are harmless, so most of the work is to see that soon. Values in which nothing is said are left out. The
others of a record are one text, a line for each, which also shows what is said across several fields; such texts of
many records are read at once. Only where one scores above a low mark, each field is judged by itself, and only that is
a verdict.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuit_script.events.batch import Item
from circuit_script.events.sources.circuit import Circuit
from circuit_script.events.wordless import is_id, is_wordless, said_in
from circuit_script.execution.outcome import JOB, Fields, PlainVerdict
from circuit_script.judgment import intake
from circuit_script.judgment.policy import OFF, PRESETS, digest_of
from circuit_script.judgment.protocol import JudgmentProtocol
from circuit_script.judgment.verdict import Action, Finding, Verdict

MARK = 0.5  # below it nothing of a record is judged by itself
SHORT = 1_000  # characters of the texts of most records. Of these, as many are read at once as ...
MANY_SHORT = 96_000  # ... have so many characters: the more, the less each costs. But as many as of longer ones ...
SLOWLY = 1e-6  # ... after some that took so many seconds a character, as texts do that are made to take long
TOGETHER = 16_000  # characters of longer ones that are read at once, in the event loop: what is longer, in a thread
REMEMBERED = 8_192  # records that were found harmless, and the characters of one
LONGEST_REMEMBERED = 4_000
WHOLE = ""  # the place of a verdict on several fields together
LIKE_AN_ATTACK = "Its words are those of an attack."
EVIDENCE = 5  # findings that are told of a verdict
HOLDS = frozenset({Action.QUARANTINE, Action.BLOCK})
GRAVITY = {action: n for n, action in enumerate(Action)}
_TOLD = PRESETS["balanced"]  # what is told where nothing is done

Verdicts = Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class _Text:
    """One text of the record's field ``top``. What is not ``new`` was judged when it came: nothing is held back for
    it."""

    top: str
    path: str
    text: str
    new: bool


@dataclass(slots=True)
class _Sheet:
    """What there is to judge of one record."""

    place: int
    item: Item
    source: str
    joined: str

    def field(self, path: str) -> str:
        return f"{self.item.row.object}.{path}"


class Screen:
    """Judges records. It asks nobody; what it remembers are texts that were harmless."""

    def __init__(self, protocol: JudgmentProtocol) -> None:
        self._protocol = protocol
        policy = protocol.policy
        places = [policy.usual, *policy.tenants.values(), *policy.fields.values(), *policy.sources.values()]
        self._least = min(_TOLD.neutralize, *(each.neutralize for each in places))
        self._mark = min(MARK, self._least)
        self._any_off = OFF in places
        self._harmless: OrderedDict[str, None] = OrderedDict()
        self._warm = False
        self._most = MANY_SHORT

    async def screened(self, items: Sequence[Item], *, echoes: bool = False) -> list[Item]:
        """The same with verdicts where there is something to say. Echoes are judged only where they are run."""
        if items[0].row.object == JOB:
            return list(items)
        sheets = [sheet for place, item in enumerate(items) if (sheet := self._sheet(place, item, echoes)) is not None]
        if not sheets:
            return list(items)
        found = await self._judged(sheets)
        if not found:
            return list(items)
        return [replace(item, verdicts=found[place]) if place in found else item for place, item in enumerate(items)]

    def _sheet(self, place: int, item: Item, echoes: bool) -> _Sheet | None:
        """What is to be judged of a record, if anything."""
        source = str(item.meta["source"])
        if source == Circuit.name or (item.echo and not echoes):
            return None
        said = None if self._any_off else said_in(item.record)
        if said is None:
            texts, over = self._texts(item, source)
            if over:
                return _Sheet(place, item, source, "")
            said = [each.text for each in texts]
        if not said:
            return None
        joined = "\n".join(dict.fromkeys(said))
        if joined in self._harmless:
            self._harmless.move_to_end(joined)
            return None
        return _Sheet(place, item, source, joined)

    def _texts(self, item: Item, source: str) -> tuple[list[_Text], tuple[Finding, ...]]:
        """The texts of a record that are judged by this policy, and what was too much to be read."""
        texts, over = _texts_of(item)
        if not self._any_off:
            return texts, over
        thresholds, tenant, object_ = self._protocol.policy.thresholds, item.row.tenant, item.row.object
        texts = [each for each in texts if thresholds(tenant, source, f"{object_}.{each.path}") != OFF]
        return texts, () if thresholds(tenant, source, object_) == OFF else over

    async def _judged(self, sheets: Sequence[_Sheet]) -> dict[int, Verdicts]:
        """By the places of records what is said of them; harmless ones are not among them.

        What is short is judged here, with a turn for others after each: beside a thread that computes, Python lets this
        one wait for 5 ms at each step.
        """
        found: dict[int, Verdicts] = {}
        for group in _groups(sheets, self._most):
            if self._warm and len(group[0].joined) <= TOGETHER:
                began = time.thread_time()
                found |= self._judge(group)
                took = (time.thread_time() - began) / sum(len(each.joined) + 1 for each in group)
                self._most = TOGETHER if took > SLOWLY else MANY_SHORT
                await asyncio.sleep(0)
            else:  # patterns and weights are read at the first look
                found |= await asyncio.to_thread(self._judge, group)
                self._warm = True
        return found

    def _judge(self, group: Sequence[_Sheet]) -> dict[int, Verdicts]:
        """What is said of these records, where there is something to say."""
        found: dict[int, Verdicts] = {}
        scores = self._protocol.scores([each.joined for each in group])
        for sheet, score in zip(group, scores, strict=True):
            if sheet.joined and score < self._mark:
                self._remember(sheet.joined)
            elif told := self._verdicts(sheet):
                found[sheet.place] = told
        return found

    def _remember(self, joined: str) -> None:
        """Below the mark a text is harmless to everybody, wherever it stands."""
        if len(joined) > LONGEST_REMEMBERED:
            return
        self._harmless[joined] = None
        if len(self._harmless) > REMEMBERED:
            self._harmless.popitem(last=False)

    def _verdicts(self, sheet: _Sheet) -> dict[str, Verdict]:
        """Of a record that is worth a closer look."""
        row = sheet.item.row
        told: dict[str, Verdict] = {}
        texts, over = self._texts(sheet.item, sheet.source)
        if over:
            action = self._protocol.policy.thresholds(row.tenant, sheet.source, row.object).action(1.0)
            told[WHOLE] = _milder(Verdict(1.0, action, over, sheet.source, row.object), sheet.item, True)
            return told  # too much to be read is not read
        rest: list[_Text] = []
        for each, score in zip(texts, self._protocol.scores([each.text for each in texts]), strict=True):
            if score < self._least:
                rest.append(each)
                continue
            verdict = self._protocol.judge(
                each.text, source=sheet.source, field=sheet.field(each.path), tenant=row.tenant
            )
            if verdict.score < _TOLD.neutralize and verdict.clean:
                rest.append(each)
            else:
                told[each.path] = _milder(verdict, sheet.item, each.new)
        across = self._across(sheet, rest)
        if across is not None:
            if across.action is Action.NEUTRALIZE:
                told |= {each.path: replace(across, field=sheet.field(each.path)) for each in rest}
            else:
                told[WHOLE] = across
        return told

    def _across(self, sheet: _Sheet, rest: Sequence[_Text]) -> Verdict | None:
        """What the fields say together of which none says anything by itself."""
        texts = list(dict.fromkeys(each.text for each in rest))
        if len(texts) < 2 or not any(each.new for each in rest):
            return None
        row = sheet.item.row
        joined = "\n".join(texts)
        if self._protocol.scores([joined])[0] < self._least:
            return None
        verdict = self._protocol.judge(joined, source=sheet.source, tenant=row.tenant)
        if verdict.score < _TOLD.neutralize and verdict.clean:
            return None
        return _milder(replace(verdict, field=row.object), sheet.item, True)


def held_by(item: Item) -> tuple[str, Verdict] | None:
    """Where and why a record does not run, by its gravest verdict."""
    held = [(path, each) for path, each in item.verdicts.items() if each.action in HOLDS]
    return max(held, key=lambda each: (GRAVITY[each[1].action], each[1].score)) if held else None


def reason_of(item: Item) -> str | None:
    """Why a record becomes a dead letter, and what can be done; None for one that runs."""
    held = held_by(item)
    if held is None:
        return None
    path, verdict = held
    best = strongest(verdict)
    level = best.level if best is not None else "model"
    said = f"{level} in {_shown(path)}: {(best.why or best.evidence) if best is not None else LIKE_AN_ATTACK}"
    digest = _digest_of(item, path)
    rule = f'add [[judgment.allow]] with a reason and digest = "{digest}"' if digest else "give it another preset"
    if verdict.action is Action.BLOCK:
        return f"blocked: {said} A retry is blocked, too: to let it pass, {rule}."
    return f"quarantined: {said} Retry it to let this text pass once, or {rule}."


def _digest_of(item: Item, path: str) -> str:
    """By which a rule knows what is held; empty for what was too much to be read."""
    texts, over = _texts_of(item)
    if path == WHOLE:
        return "" if over else digest_of(_read_together(texts, item))
    return next((digest_of(each.text) for each in texts if each.path == path), "")


def _read_together(texts: Sequence[_Text], item: Item) -> str:
    rest = [each.text for each in texts if each.path not in item.verdicts]
    return "\n".join(dict.fromkeys(rest))


def without_held(item: Item) -> Fields:
    """What an event brought, without the texts for which it does not run: what comes later must not bring them along.
    They stand in the ledger, and come with the letter when it is retried."""
    held = {path for path, each in item.verdicts.items() if each.action in HOLDS}
    texts, _ = _texts_of(item)
    gone = {each.top for each in texts if each.path in held or WHOLE in held}
    if WHOLE in held:
        gone |= {name for name, value in item.incoming.items() if isinstance(value, dict | list)}
    return {name: value for name, value in item.incoming.items() if name == "id" or name not in gone}


def strongest(verdict: Verdict) -> Finding | None:
    """The finding that says most."""
    return max(verdict.findings, key=lambda each: each.score, default=None)


def lines_of(item: Item) -> Iterator[dict[str, Any]]:
    """Log lines that tell what was found in a record."""
    for path, verdict in item.verdicts.items():
        action = str(verdict.action)
        passes = next((each for each in verdict.findings if each.level == "tribunal"), None)
        if passes is not None:
            action += f" ({passes.why} {passes.evidence})"
        elif verdict.clean:
            action += f" (would {_TOLD.action(verdict.score)})"
        yield {
            "level": "warning",
            "message": f"{action}: {verdict.reason or LIKE_AN_ATTACK} ({_shown(path)})",
            "record": item.row.record,
            "context": {
                "action": str(verdict.action),
                "score": round(verdict.score, 3),
                "source": verdict.source,
                "field": verdict.field,
                "event": item.row.arrived,
                "findings": [
                    {
                        "level": each.level,
                        "score": round(each.score, 3),
                        "span": list(each.span),
                        "evidence": each.evidence,
                        "why": each.why,
                        "pattern": each.pattern,
                    }
                    for each in sorted(verdict.findings, key=lambda each: -each.score)[:EVIDENCE]
                ],
            },
        }


def plain_of(verdicts: Verdicts) -> dict[str, PlainVerdict]:
    """Verdicts as a Work has them."""
    return {
        path: (
            each.score,
            str(each.action),
            each.source,
            each.field,
            [[f.level, f.score, *f.span, f.evidence, f.why, f.pattern] for f in each.findings],
        )
        for path, each in verdicts.items()
    }


def _milder(verdict: Verdict, item: Item, new: bool) -> Verdict:
    """The verdict as it counts here: what came before, and what a person has put back on the queue, is not held."""
    if verdict.action not in HOLDS:
        return verdict
    if not new:
        return replace(verdict, action=Action.NEUTRALIZE)
    if verdict.action is Action.QUARANTINE and item.row.past is not None and item.row.replay is None:
        passed = Finding("tribunal", 0.0, (0, 0), "once", "Its letter was retried, so it passes.")
        return replace(verdict, action=Action.NEUTRALIZE, findings=(*verdict.findings, passed))
    return verdict


def _groups(sheets: Sequence[_Sheet], most: int) -> Iterator[list[_Sheet]]:
    """Records together, as far as they are short: ``most`` characters of short ones."""
    short = [each for each in sheets if len(each.joined) <= SHORT]
    yield from _filled(short, most)
    if len(short) < len(sheets):
        yield from _filled([each for each in sheets if len(each.joined) > SHORT], TOGETHER)


def _filled(sheets: Sequence[_Sheet], most: int) -> Iterator[list[_Sheet]]:
    """Groups of so many characters at most, but for what is longer by itself."""
    group: list[_Sheet] = []
    room = most
    for sheet in sheets:
        if group and len(sheet.joined) > room:
            yield group
            group, room = [], most
        group.append(sheet)
        room -= len(sheet.joined)
    if group:
        yield group


def _texts_of(item: Item) -> tuple[list[_Text], tuple[Finding, ...]]:
    """Every text of a record in which something could be said, and what was too much to be read."""
    texts: list[_Text] = []
    over: tuple[Finding, ...] = ()
    incoming, old = item.incoming, item.old
    for name, value in item.record.items():
        usual = intake.is_usual(name)
        if usual and (not value or isinstance(value, int | float)):
            continue
        new = not item.echo and name in incoming and not (old is not None and name in old and old[name] == value)
        if usual and isinstance(value, str):
            if not is_wordless(value) and not (name == "id" and is_id(value)):
                texts.append(_Text(name, name, value, new))
            continue
        read = intake.read({name: value})
        over += read.over if new else ()
        texts += [_Text(name, each.path, each.text, new) for each in read.pieces if not is_wordless(each.text)]
    if any(each.new for each in texts) and sum(len(each.text) for each in texts) > intake.CHARACTERS:
        why = f"It has more than {intake.CHARACTERS:,} characters."
        over += (Finding("intake", 1.0, (0, 0), item.row.object, why, "intake.size"),)
    return texts, over


def _shown(path: str) -> str:
    return path or "several fields together"
