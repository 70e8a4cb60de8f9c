"""How ``circuit-script judge`` tells a person what it found. The text is a stranger's: none of it reaches the terminal
but as letters, within a frame that it cannot leave."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from circuit_script.cli.output import console, visible
from circuit_script.judgment import Action, Policy, Verdict
from circuit_script.judgment.feedback import Feedback
from circuit_script.judgment.telling import by_level, marked, of_rules, rule_for, said_by, threshold_words, tone

COLOURS = {"bad": "bold red", "warn": "yellow", "plain": "dim"}
PLACES = {"bad": "bold white on red", "warn": "black on yellow", "plain": "underline"}
ACTIONS = {Action.ALLOW: "green", Action.NEUTRALIZE: "yellow", Action.QUARANTINE: "bold red", Action.BLOCK: "bold red"}
DOES = {
    Action.ALLOW: "it is used as it is",
    Action.NEUTRALIZE: "it is fenced, as data and never as instructions",
    Action.QUARANTINE: "its record goes to the dead letters",
    Action.BLOCK: "it is refused",
}
OPEN, CLOSE = "⟦", "⟧"  # around a place, where there are no colours
BESIDE = str.maketrans({OPEN: "[", CLOSE: "]"})
SHOWN = 80  # characters of a text in a list
FOUND = 8  # findings of one level


def show(
    name: str,
    text: str,
    verdict: Verdict,
    policy: Policy,
    where: str,
    tenant: str | None,
    *,
    explain: bool,
) -> None:
    """The verdict, and with ``explain`` all that led to it."""
    out = console()
    out.print(_headline(name, text, verdict))
    if not explain:
        if verdict.reason:
            out.print(Text(f"  {visible(verdict.reason)}"), soft_wrap=True)
        if not verdict.clean:
            out.print(Text("  where, and what would let it pass: --explain", "dim"))
        return
    out.print()
    out.print(
        Panel(_marked(out, text, verdict), title="the text", title_align="left", border_style="dim", expand=False)
    )
    _levels(out, verdict, len(text))
    _policy(out, policy, where, verdict, tenant)
    if not verdict.clean:
        out.print(Text("\nThis would let it pass, each time said in the log (circuit.toml):\n", "dim"))
        out.print(Text(visible(rule_for(text, tenant=tenant, field=verdict.field))), soft_wrap=True)


def _headline(name: str, text: str, verdict: Verdict) -> Text:
    line = Text()
    line.append(str(verdict.action), ACTIONS[verdict.action])
    line.append(f"  {verdict.score:.3f}", "bold")
    line.append(f"  {_short(name)}, {len(text):,} characters: {DOES[verdict.action]}", "dim")
    return line


def _marked(out: Console, text: str, verdict: Verdict) -> Text:
    coloured = out.is_terminal and not out.no_color
    shown = Text()
    for part in marked(text, verdict.findings):
        if part.left_out:
            shown.append(f" … {part.left_out:,} characters … ", "dim")
            continue
        words = visible(part.text)
        if part.finding is None:
            shown.append(words if coloured else words.translate(BESIDE))
        elif coloured:
            shown.append(words, PLACES[tone(part.finding.score)])
        else:
            shown.append(f"{OPEN}{words.translate(BESIDE)}{CLOSE}")
    return shown


def _levels(out: Console, verdict: Verdict, length: int) -> None:
    for level, found in by_level(verdict):
        strongest = found[0].score if found else 0.0
        colour = COLOURS[tone(strongest)] if found else "dim"
        line = Text("  " if found or level.name in ("intake", "model", "tribunal") else "· ", "dim")
        line.append(f"{level.number:>2} {level.name:<10} ", colour if found else "dim")
        line.append(visible(said_by(level, found, verdict, length)), "" if found else "dim")
        out.print(line, soft_wrap=True)
        rules = of_rules(found) if level.name != "tribunal" else []
        for each, times in rules[:FOUND]:
            told = Text("       ")
            told.append(f"{each.score:.2f}  ", COLOURS[tone(each.score)])
            told.append(f"{each.span[0]:,}-{each.span[1]:,}  ", "dim")
            told.append(visible(each.evidence))
            if times > 1:
                told.append(f"  {times:,} times", "dim")
            if each.pattern:
                told.append(f"  {visible(each.pattern)}", "dim")
            out.print(told, soft_wrap=True)
        if len(rules) > FOUND:
            out.print(Text(f"       and {len(rules) - FOUND:,} more: --json has all", "dim"))


def _policy(out: Console, policy: Policy, where: str, verdict: Verdict, tenant: str | None) -> None:
    said = threshold_words(policy.thresholds(tenant, verdict.source, verdict.field))
    out.print(
        Text(f"\npolicy: {said}  ({visible(where) or 'the usual one: no circuit.toml here'})", "dim"), soft_wrap=True
    )


@contextlib.contextmanager
def progress(many: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error, where somebody watches it."""
    out = console(stderr=True)
    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True, disable=quiet or not out.is_terminal) as bar:
        task = bar.add_task("judging", total=many)
        yield lambda: bar.advance(task)


def show_lines(name: str, rows: Sequence[tuple[int, str, Verdict]], counts: Mapping[Action, int]) -> None:
    """Each line that may not pass, and how many of each there were."""
    out = console()
    for number, text, verdict in rows:
        line = Text(f"{number:>6}  ")
        line.append(f"{verdict.action:<10}", ACTIONS[verdict.action])
        line.append(f" {verdict.score:.3f}  ", "bold")
        line.append(_short(text))
        out.print(line, soft_wrap=True)
    said = ", ".join(f"{counts[each]:,} {each}" for each in Action if counts[each])
    out.print(Text(f"{_short(name)}: {said or 'no text'}"), soft_wrap=True)


def show_feedback(found: Sequence[Feedback], path: Path) -> None:
    """What people said of verdicts, the newest last."""
    out = console()
    if not found:
        out.print("Nothing was kept. A verdict is wrong? circuit-script judge --wrong benign TEXT")
        return
    for each in found:
        line = Text(f"{visible(str(each.at))[:16].replace('T', ' ')}  ", "dim")
        line.append("attack" if each.label else "benign", "red" if each.label else "green")
        line.append(f"  {each.score:.3f}  ", "bold")
        line.append(_short(each.text))
        if each.reason:
            line.append(f"  ({_short(each.reason)})", "dim")
        out.print(line, soft_wrap=True)
    out.print(
        Text(f"{len(found):,} in {visible(str(path))}; the texts are kept there as they are", "dim"), soft_wrap=True
    )


def _short(text: str) -> str:
    """One line of it, and nothing that a terminal would obey."""
    line = " ".join(visible(text[: SHOWN * 4]).split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
