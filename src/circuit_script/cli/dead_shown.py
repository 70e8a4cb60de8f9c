"""How ``circuit-script dead`` and ``doubt`` tell a person what they found."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from circuit_script.cli.output import add_rows, table, visible
from circuit_script.cli.traces import authors_part, taken_out
from circuit_script.events.letters import Answer, Attempt, Cause, Fate, Letter, Line, Payload, Story
from circuit_script.governor import amount

WIDEST = 70  # letters of a reason in a list
LONGEST = 200  # lines of a payload
_COLOURS = {"open": "yellow", "retried": "green", "discarded": "dim"}
_LEVELS = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}
_ENDS = {"succeeded": "green", "dead": "bold red", "failed": "red", "breached": "red", "retry": "yellow"}
NEAR = 0.8  # of a limit
DEPTH = "depth"  # each execution is at least its own


def show_letters(
    out: Console,
    counted: Sequence[Cause],
    found: Sequence[Letter],
    *,
    status: str,
    filtered: bool,
    doubts: int = 0,
    narrowed: Sequence[str] = (),
) -> None:
    """The causes, then the letters, then what to do. ``narrowed`` are the options by which they were found."""
    if not counted:
        which = "that fits" if filtered else "" if status == "all" else f"that is {status}"
        out.print(f"There is no dead letter {which}".rstrip() + ".")
    else:
        total = counted[0].of
        of = "" if status == "all" else f" {status}"
        out.print(Text(f"{total:,}{of} dead letter{'s' if total != 1 else ''}", "bold"))
        _show_causes(out, counted)
        if found:
            _show_found(out, found, counted, status, narrowed)
    if doubts:
        few = "1 effect is" if doubts == 1 else f"{doubts:,} effects are"
        out.print(f"\n{few} in doubt: circuit-script doubt list", style="yellow")


def _show_causes(out: Console, counted: Sequence[Cause]) -> None:
    rows = ((f"{c.n:,}", c.kind, c.handler, _short(c.cause), _at(c.first), _at(c.last)) for c in counted)
    out.print(add_rows(table("letters", "of an", "trigger", "cause", "first", "last", right=("letters",)), rows))
    if (rest := counted[0].of - sum(each.n for each in counted)) > 0:
        out.print(f"… and {rest:,} of other causes", style="dim")


def _show_found(
    out: Console, found: Sequence[Letter], counted: Sequence[Cause], status: str, narrowed: Sequence[str]
) -> None:
    total, everybody = counted[0].of, status == "all"
    headings = ("letter", "died", "trigger", "tenant", "record", "attempts", "reason", *(["then"] if everybody else []))
    rows = (
        (
            each.id,
            _at(each.at),
            each.handler or each.kind,
            each.tenant,
            each.record or "",
            f"{each.attempts:,}",
            _short(each.reason),
            *([_then(each)] if everybody else []),
        )
        for each in found
    )
    out.print()
    out.print(add_rows(table(*headings, right=("letter", "attempts")), rows))
    if total > len(found):
        out.print(f"… and {total - len(found):,} older: --limit shows more", style="dim")
    one = found[0].id
    out.print(f"all of one: circuit-script dead show {one}  ·  again: circuit-script dead retry {one}", style="dim")
    cause = counted[0].cause
    if status == "open" and cause and cause == visible(cause):
        of = "".join(f" {shlex.quote(each)}" for each in narrowed)
        again = f"circuit-script dead retry --reason {_quoted(cause)}{of}"
        out.print(Text(f"all of a kind: {visible(again)}", "dim"), soft_wrap=True)


def show_story(out: Console, story: Story) -> None:
    """One letter from its beginning to where it stands."""
    letter = story.letter
    out.print(Text.assemble((f"Letter {letter.id}", "bold"), "  ", (letter.status, _COLOURS[letter.status])))
    out.print(facts(_about(story)))
    _show_payload(out, story.payload, letter.kind)
    show_answers(out, story.answers)
    heading = "The execution that asked for it" if letter.kind == "effect" else "Attempts"
    show_attempts(out, heading, story.attempts)
    show_lines(out, story.lines)
    out.print()
    out.print(Text(_next(letter, story.payload), "dim"))


def _about(story: Story) -> Iterable[tuple[str, str]]:
    letter, payload = story.letter, story.payload
    if letter.kind == "effect":
        yield "effect", f"{letter.effect}"
        yield "of", f"{letter.connector} {letter.operation} to {letter.target}"
    else:
        what = ".".join(each for each in (letter.object, letter.event) if each)
        yield "event", f"{what}, id {letter.event_id}" if letter.event_id else what
    yield "record", f"{letter.record or 'of none'}, tenant {letter.tenant}"
    yield "trigger", letter.handler or "no longer known"
    yield "died", f"{_moment(letter.at)}, after {letter.attempts} attempt{'s' if letter.attempts != 1 else ''}"
    yield "reason", letter.reason
    if letter.delivery:
        account = f", account {payload.account}" if payload.account else ""
        received = f", received {_moment(payload.received_at)}" if payload.received_at else ""
        came = f" from {payload.source}{account}{received}" if payload.source else ""
        yield "delivery", f"{letter.delivery}{came}"
    if payload.vendor_id:
        yield "vendor's id", payload.vendor_id
    if payload.original:
        yield "edited from", f"delivery {payload.original}"
    if letter.closed:
        yield "then", letter.closed
    if letter.edited:
        yield "edited as", f"delivery {letter.edited}"
    if story.now:
        yield "now", story.now


def _show_payload(out: Console, payload: Payload, kind: str) -> None:
    out.print()
    if payload.fields is not None:
        words = "Payload, as it was to leave" if kind == "effect" else "Payload, as it came"
        out.print(Text(words, "bold"))
        out.print(indented(payload.fields))
        return
    out.print(Text("Payload", "bold"))
    out.print(Padding(Text(f"{payload.fault}.", "yellow"), (0, 0, 0, 2), expand=False))
    if payload.stored is not None:
        out.print(Padding(Text("The record as it is stored now:"), (0, 0, 0, 2), expand=False))
        out.print(indented(payload.stored))


def indented(fields: Mapping[str, Any]) -> Padding:
    """JSON below its heading; a very long one is cut."""
    lines = json.dumps(fields, indent=2, ensure_ascii=False, default=str).splitlines()
    if len(lines) > LONGEST:
        lines = [*lines[:LONGEST], f"… {len(lines) - LONGEST:,} more lines: --json has them"]
    return Padding(Text(visible("\n".join(lines))), (0, 0, 0, 2), expand=False)


def show_answers(out: Console, answers: Sequence[Answer]) -> None:
    """What the vendor said to each attempt."""
    if answers:
        rows = ((each.attempt, _moment(each.at), each.status.replace("_", " "), visible(each.said)) for each in answers)
        out.print()
        out.print(add_rows(table("attempt", "at", "then", "what the vendor answered", right=("attempt",)), rows))


def show_attempts(out: Console, heading: str, attempts: Sequence[Attempt]) -> None:
    """Each execution: when, how it ended, what it used of its limits, and where it stood."""
    out.print()
    out.print(Text(heading, "bold"))
    if not attempts:
        out.print("  No longer known: older than what is kept.", style="dim")
    before = ""
    for number, each in enumerate(attempts, 1):
        out.print(
            Text.assemble(
                f"  {number}  {_moment(each.at)}  ",
                (each.status, _ENDS.get(each.status, "")),
                (f"  execution {each.execution}", "dim"),
                (f"  with {each.records - 1:,} others" if each.records > 1 else "", "dim"),
            )
        )
        if each.reason:
            out.print(Padding(Text(visible(each.reason)), (0, 0, 0, 5), expand=False))
        stack = authors_part(each.detail or "")
        if stack and stack == before:
            out.print(Padding(Text("the same stack", "dim"), (0, 0, 0, 5), expand=False))
        elif stack:
            out.print(Padding(Text(visible(stack), "dim"), (0, 0, 0, 5), expand=False))
        before = stack
        if used := _used(each):
            out.print(Padding(used, (0, 0, 0, 5), expand=False))


def _used(attempt: Attempt) -> Text:
    """What it used of its limits, the nearest first; what came near to one stands out, next to nothing is left out."""
    shares = {name: used / ceiling if ceiling else 1.0 for name, (used, ceiling) in attempt.used.items()}
    parts: list[tuple[str, str]] = []
    for name, share in sorted(shares.items(), key=lambda each: -each[1]):
        used, ceiling = attempt.used[name]
        if share < 0.01 or (name == DEPTH and used <= 1):
            continue
        of = f" of {amount(name, ceiling)}" if ceiling else ""
        colour = "dim" if share < NEAR or ceiling is None else "yellow" if share < 1 else "red"
        parts += [("  ·  ", "dim")] if parts else []
        parts.append((f"{name} {amount(name, used)}{of}", colour))
    return Text.assemble(*parts)


def show_lines(out: Console, lines: Sequence[Line]) -> None:
    """What the executions logged about the record; a stack stands below its line, the same one once."""
    if not lines:
        return
    out.print()
    out.print(Text("Log", "bold"))
    before = ""
    for line in lines:
        context, trace = taken_out(line.context or {})
        stack = authors_part(trace)
        fields = " ".join(f"{name}={_value(value)}" for name, value in context.items())
        said = Text.assemble(
            (f"{line.at.astimezone():%m-%d %H:%M:%S} ", "dim"),
            (f"{line.level:8} ", _LEVELS.get(line.level, "green")),
            visible(line.message),
            (visible(f"  {fields}" if fields else ""), "dim"),
        )
        out.print(Padding(said, (0, 0, 0, 2), expand=False))
        if stack:
            shown = "the same stack" if stack == before else visible(stack)
            out.print(Padding(Text(shown, "dim"), (0, 0, 0, 6), expand=False))
            before = stack


def tell_fates(out: Console, fates: Sequence[Fate]) -> None:
    """What became of each that was not simply done, the same said once; and how many were done."""
    for fate in [each for each in fates if each.done in ("before", "refused")][:20]:
        colour = "yellow" if fate.done == "before" else "red"
        out.print(Text.assemble(f"letter {fate.letter}: ", (visible(fate.said), colour)))
    count = Counter(fate.done for fate in fates)
    words = {"before": "closed before"}
    said = ", ".join(f"{n:,} {words.get(done, done)}" for done, n in count.items())
    out.print(f"{said or 'no letter fits'}")


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values, a line each."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(name, Text(visible(value)))
    return made


def _next(letter: Letter, payload: Payload) -> str:
    if letter.closed:
        return f"everything about its record: circuit-script logs --record {letter.record}" if letter.record else ""
    retry = [f"again:            circuit-script dead retry {letter.id}"] if payload.fields is not None else []
    edit = f"otherwise, again: circuit-script dead edit {letter.id}"
    return "\n".join([*retry, edit, f'never again:      circuit-script dead discard {letter.id} --reason "…"'])


def _then(letter: Letter) -> str:
    return f"{letter.status} by {letter.by} {_at(letter.closed_at)}" if letter.closed_at else letter.status


def _quoted(text: str) -> str:
    """For a shell, as a person would write it."""
    return shlex.quote(text) if set('"$`\\!') & set(text) else f'"{text}"'


def _value(value: Any) -> str:
    return value if isinstance(value, str) and " " not in value else json.dumps(value, ensure_ascii=False, default=str)


def _at(moment: datetime) -> str:
    return f"{moment.astimezone():%m-%d %H:%M:%S}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _short(text: str) -> str:
    line = " ".join(visible(text).split())
    return line if len(line) <= WIDEST else f"{line[: WIDEST - 1]}…"
