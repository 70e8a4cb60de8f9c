"""One dead letter: everything that is known of it, and what a person does about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from circuit_script.access import Act
from circuit_script.dashboard.afterwards import tell, then
from circuit_script.dashboard.asking import EDITED
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pages.dead_letters import PATH, finish, what_of
from circuit_script.dashboard.pieces import (
    Cell,
    button,
    chip,
    confirm,
    el,
    empty,
    facts,
    head,
    ident,
    link,
    moment,
    panel,
)
from circuit_script.dashboard.reading import acting, borrowed
from circuit_script.dashboard.telling import answers_panel, attempts_panel, lines_panel, payload_panel
from circuit_script.dashboard.words import editable, number, short
from circuit_script.errors import LetterRefused
from circuit_script.events.letters import (
    Letter,
    Story,
    find_letter,
    must_have_place,
    parsed,
    payload_of,
    send_edited,
    story_of,
)
from circuit_script.events.letters.letter import reading as letter_reading

CHANGES = 12  # fields of an edit that are named


@page(PATH + "/{number}", title="Dead letter")
async def dead_letter(view: View) -> None:
    tell(view)
    story = await _story(view)
    letter = story.letter
    with head(f"Dead letter {letter.id}", what_of(letter)):
        chip(letter.status, {"open": "bad", "retried": "good"}.get(letter.status, "plain"))
        _acts(view, story)
    with el("div", "columns two-one"):
        with el("div", "stack"):
            if view.query.get("edit") and not letter.closed and view.may(Act.edit):
                _editor(view, story)
            else:
                title = "What came" if letter.kind == "event" else "What was to leave"
                payload_panel(
                    view, story.payload.editable, title, fault=story.payload.fault, name=f"letter-{letter.id}"
                )
            if letter.was is not None and letter.kind == "effect" and story.payload.fields != letter.was:
                payload_panel(view, letter.was, "Before somebody edited it", name=f"letter-{letter.id}-before")
            attempts_panel(view, "Attempts" if letter.kind == "event" else "Who asked for it", story.attempts)
            answers_panel(view, story.answers)
            lines_panel(view, story.lines)
        with el("div", "stack"):
            with panel("About it"):
                facts(_facts(view, story))


async def _story(view: View) -> Story:
    """Raises LetterRefused for what is no letter of this tenant."""
    text = view.path["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise LetterRefused("There is no such dead letter.", cure="Look in the list of them.")
    async with borrowed() as connection:  # both read as the tenant
        return await story_of(connection, await find_letter(connection, int(text), view.tenant), view.tenant)


def _facts(view: View, story: Story) -> list[tuple[str, Cell]]:
    letter = story.letter
    told: list[tuple[str, Cell]] = [("Why", letter.reason[:2000]), ("Died", partial(moment, letter.at, view))]
    told += [("Attempts", number(letter.attempts)), ("Handler", letter.handler or "no longer known")]
    if letter.record is not None:
        where = view.record(letter.object or "Contact", letter.record)
        told.append(("Record", lambda: link(letter.record, where)))
    if story.payload.source is not None:
        told.append(("Came from", f"{story.payload.source}, account {story.payload.account}"))
    if story.payload.received_at is not None:
        told.append(("Received", partial(moment, story.payload.received_at, view)))
    if letter.delivery is not None:
        told.append(("Delivery", partial(ident, letter.delivery)))
    if letter.effect is not None:
        told.append(("Effect", partial(ident, letter.effect)))
    if letter.closed_at is not None:
        told.append((letter.status.capitalize(), partial(moment, letter.closed_at, view)))
        told.append(("By", letter.by))
        told += [("Reason given", letter.why)] if letter.why else []
    if story.now:
        told.append(("Now", story.now))
    return told


def _acts(view: View, story: Story) -> None:
    letter = story.letter
    if letter.closed:
        return
    if view.query.get("edit"):
        link("Leave it as it is", view.here(edit=None), "button quiet")
        return
    if view.may(Act.discard):
        button("Discard", lambda: _ask(view, letter, Act.discard), kind="danger")
    if view.may(Act.edit):
        link("Edit and retry", view.here(edit=1), "button")
    if view.may(Act.retry) and story.payload.fields is not None:
        button("Retry", lambda: _ask(view, letter, Act.retry), kind="main")


async def _ask(view: View, letter: Letter, act: Act) -> None:
    if act is Act.retry:
        words = "It goes on the road again once, with all its attempts and the payload as it came."
        answer = await confirm(f"Retry letter {letter.id}?", words, "Retry")
    else:
        words = "Nobody will try it again. Who, when and why is kept."
        answer = await confirm(f"Discard letter {letter.id}?", words, "Discard", reason=True, danger=True)
    if answer is not None:
        await finish(view, [letter.id], act, answer)
        then(view, view.here())


def _editor(view: View, story: Story) -> None:
    """The payload in a person's hands. It reaches us when the field is left, or the button pressed."""
    letter = story.letter
    before = story.payload.editable or {"id": letter.record}
    text = editable(before)
    with panel("Edit and retry", "what came stays as it came"):
        if len(text) > EDITED:
            empty("It is too large for a browser.", f"Of {number(len(text))} characters: edit it in a terminal.",
                  f"circuit-script dead edit {letter.id}")  # fmt: skip
            return
        if story.payload.fault:
            el("p", "muted", f"{story.payload.fault}; this is what is known.")
        typed = [text]
        area = el("textarea", "input code", rows=min(28, max(10, text.count("\n") + 2)), spellcheck="false",
                  aria_label="Payload as JSON", data_editor="1")  # fmt: skip
        area._text = text

        def took(event: Any) -> None:
            typed[0] = event.args if isinstance(event.args, str) else ""

        area.on("change", took, js_handler="(e) => emit(e.target.value)")
        with el("div", "dialog-acts"):
            link("Cancel", view.here(edit=None), "button quiet")
            button("Send it", lambda: _send(view, letter.id, typed[0]), kind="main")


async def _send(view: View, number_: int, text: str) -> None:
    """Check, say what changes, and send it. Raises LetterRefused."""
    after = parsed(text)
    async with acting(view, Act.edit) as connection:
        letter = await find_letter(connection, number_, view.tenant)
        async with letter_reading(connection, view.tenant):
            payload = await payload_of(connection, letter)
    before = payload.editable or {"id": letter.record}
    must_have_place(letter, before, after)
    if payload.fields is not None and after == payload.fields:
        raise LetterRefused("Nothing was changed.", cure="As it is: Retry.")
    answer = await confirm(f"Retry letter {letter.id} with this?", "; ".join(changes(before, after)), "Send it")
    if answer is None:
        return
    async with acting(view, Act.edit) as connection:
        await send_edited(connection, letter.id, after, view.person.name, tenant=view.tenant)
    then(view, view.here(edit=None), f"Letter {letter.id} is on the road again, as you wrote it.")


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Each field that is another now, in a few words."""
    told = [f"{name} goes" for name in before if name not in after]
    told += [f"{name} is new: {_shown(after[name])}" for name in after if name not in before]
    told += [
        f"{name}: {_shown(before[name])} → {_shown(after[name])}"
        for name in after
        if name in before and before[name] != after[name]
    ]
    more = len(told) - CHANGES
    return [*told[:CHANGES], f"and {more} more"] if more > 0 else told


def _shown(value: Any) -> str:
    return short(json.dumps(value, ensure_ascii=False, default=str), 80)
