"""People: who may sign in, what each may do for whom, and where they are signed in.

An owner of everything manages accounts; an owner of one tenant manages the roles for that tenant, of people who are
there, and sees nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nicegui import ui

from circuit_script.access import (
    ALL,
    Account,
    Act,
    OpenSession,
    Role,
    add_person,
    find_person,
    grant,
    list_people,
    one_time_link,
    remove_person,
    revoke,
    sessions_of,
    sign_out_everywhere,
)
from circuit_script.dashboard.afterwards import tell, then
from circuit_script.dashboard.frame import View, page
from circuit_script.dashboard.pieces import (
    Choice,
    Column,
    Field,
    Row,
    button,
    chip,
    confirm,
    dialog,
    el,
    empty,
    facts,
    head,
    moment,
    panel,
    table,
)
from circuit_script.dashboard.reading import acting
from circuit_script.dashboard.words import number
from circuit_script.errors import PeopleRefused

PATH = "/people"
ROLES = [(role.value, role.value.capitalize()) for role in Role]
MEANS = {
    Role.viewer: "sees everything but payloads",
    Role.operator: "also sees payloads, retries, discards, settles, pauses, acknowledges",
    Role.developer: "also edits payloads",
    Role.owner: "also manages people",
}


def _all(view: View) -> bool:
    return view.person.may(Act.manage_people, ALL)


def _whose(view: View) -> str:
    """For which tenant the page's person manages."""
    return ALL if _all(view) else view.tenant


@page(PATH, title="People", act=Act.manage_people)
async def people(view: View) -> None:
    tell(view)
    async with acting(view, Act.manage_people, _whose(view)) as connection:
        found = await list_people(connection)
    found = [each for each in found if _all(view) or view.tenant in each.person.memberships]
    with head("People", "Who may sign in, and what each may do for whom."):
        button("Give a role", lambda: _give(view), kind="" if _all(view) else "main")
        if _all(view):
            button("Add somebody", lambda: _add(view), kind="main")
    if not found:
        empty("Nobody has a role here.", "Give one to somebody who has an account.")
    else:
        with panel("Accounts", number(len(found)), classes="flush"):
            columns = [
                Column("Name"), Column("Roles", wide=True), Column("Signs in by", minor=True),
                Column("Sessions", right=True, minor=True), Column("Last here", minor=True),
            ]  # fmt: skip
            table(columns, [_row(view, each) for each in found], label="People")
    with panel("Roles"):
        facts([(role.value.capitalize(), MEANS[role]) for role in Role])


def _row(view: View, each: Account) -> Row:
    roles = [
        (tenant, role)
        for tenant, role in sorted(each.person.memberships.items())
        if _all(view) or tenant == view.tenant
    ]
    said = (
        ", ".join(f"{role.value} of {'all tenants' if tenant == ALL else tenant}" for tenant, role in roles) or "none"
    )
    return Row([
        each.person.name, said, "password" if each.has_password else "one-time links", number(each.sessions),
        partial(moment, each.signed_in_at, view),
    ], view.link(f"{PATH}/{each.person.id}"))  # fmt: skip


@page(PATH + "/{person}", title="Person", act=Act.manage_people)
async def one_person(view: View) -> None:
    tell(view)
    async with acting(view, Act.manage_people, _whose(view)) as connection:
        found = [each for each in await list_people(connection) if str(each.person.id) == view.path["person"]]
        if not found or not (_all(view) or view.tenant in found[0].person.memberships):
            raise PeopleRefused("There is nobody like that here.", cure="Look in the list.")
        (account,) = found
        sessions = await sessions_of(connection, account.person.id) if _all(view) else []
    with head(account.person.name, "signs in by password" if account.has_password else "signs in by one-time links"):
        button("Give a role", lambda: _give(view, account.person.name))
        if _all(view):
            button("Make a link", lambda: _link(view, account.person.name))
            button("Remove", lambda: _remove(view, account.person.name), kind="danger")
    with el("div", "columns"):
        _roles(view, account)
        if _all(view):
            _sessions(view, account, sessions)


def _roles(view: View, account: Account) -> None:
    with panel("Roles", classes="flush"):
        shown = [pair for pair in sorted(account.person.memberships.items()) if _all(view) or pair[0] == view.tenant]
        if not shown:
            empty("No role.", "Without one, nothing is shown.")
            return
        columns = [Column("Tenant"), Column("Role"), Column("Means", wide=True, minor=True), Column("", right=True)]
        table(columns, [_role(view, account.person.name, *pair) for pair in shown], label="Roles")


def _role(view: View, name: str, tenant: str, role: Role) -> Row:
    def take() -> None:
        button("Take away", lambda: _take(view, name, tenant), kind="quiet")

    return Row(["all tenants" if tenant == ALL else tenant, lambda: chip(role.value, "plain"), MEANS[role], take])


def _sessions(view: View, account: Account, sessions: Sequence[OpenSession]) -> None:
    with panel("Signed in", classes="flush"):
        if not sessions:
            empty("Nowhere at the moment.")
            return
        columns = [Column("From"), Column("Since"), Column("Last used", minor=True), Column("", right=True)]
        table(columns, [_session(view, account, each) for each in sessions], label="Sessions")
        with el("div", "card-acts inset"):
            button("Sign out everywhere", lambda: _end(view, account, None), kind="danger")


def _session(view: View, account: Account, each: OpenSession) -> Row:
    def end() -> None:
        button("Sign out", lambda: _end(view, account, each), kind="quiet")

    return Row([
        each.address or "–", partial(moment, each.created_at, view), partial(moment, each.seen_at, view), end,
    ])  # fmt: skip


async def _end(view: View, account: Account, each: OpenSession | None) -> None:
    async with acting(view, Act.manage_people, ALL) as connection:
        n = await sign_out_everywhere(connection, account.person.id, only=None if each is None else each.id)
    then(view, view.here(), f"{number(n)} session{'s' if n != 1 else ''} ended.")


async def _add(view: View) -> None:
    with dialog("Add somebody") as asked:
        el(
            "p",
            "dialog-words",
            "They sign in by a one-time link, which you give them, and set a password then if they like.",
        )
        name = Field("E-mail address")
        tenant = Choice("For", [(ALL, "All tenants"), *((each, each) for each in view.tenants)], view.tenant)
        role = Choice("Role", ROLES, Role.viewer.value)
        with el("div", "dialog-acts"):
            button("Cancel", lambda: asked.submit(None), kind="quiet")
            button("Add", lambda: asked.submit((name.value, tenant.value, role.value)), kind="main")
    answer = await asked
    asked.delete()
    if isinstance(answer, tuple):
        async with acting(view, Act.manage_people, ALL) as connection, connection.transaction():
            account = await add_person(connection, answer[0].strip(), view.person.name)
            await grant(connection, account.person.name, answer[1], Role(answer[2]), view.person.name)
        await _link(view, account.person.name)


async def _give(view: View, name: str = "") -> None:
    own = (
        [(ALL, "All tenants"), *((each, each) for each in view.tenants)] if _all(view) else [(view.tenant, view.tenant)]
    )
    with dialog("Give a role") as asked:
        el("p", "dialog-words", "It stands in the place of the one that they have there. They sign in anew.")
        who = Field("Name of the account", name)
        tenant = Choice("For", own, view.tenant)
        role = Choice("Role", ROLES, Role.viewer.value)
        with el("div", "dialog-acts"):
            button("Cancel", lambda: asked.submit(None), kind="quiet")
            button("Give", lambda: asked.submit((who.value, tenant.value, role.value)), kind="main")
    answer = await asked
    asked.delete()
    if isinstance(answer, tuple):
        async with acting(view, Act.manage_people, answer[1]) as connection:
            await grant(connection, answer[0].strip(), answer[1], Role(answer[2]), view.person.name)
        then(
            view,
            view.here(),
            f"{answer[0].strip()} is {answer[2]} of {'all tenants' if answer[1] == ALL else answer[1]}.",
        )


async def _take(view: View, name: str, tenant: str) -> None:
    where = "all tenants" if tenant == ALL else tenant
    answer = await confirm(
        f"Take the role for {where} away?", f"{name} is signed out at once.", "Take away", danger=True
    )
    if answer is not None:
        async with acting(view, Act.manage_people, tenant) as connection:
            await revoke(connection, name, tenant)
        then(view, view.link(PATH), f"{name} has no role for {where} any more.")


async def _remove(view: View, name: str) -> None:
    words = "The account goes with its roles, sessions, links and tokens. What it did stays, with its name."
    if await confirm(f"Remove {name}?", words, "Remove", danger=True) is not None:
        async with acting(view, Act.manage_people, ALL) as connection:
            await remove_person(connection, name)
        then(view, view.link(PATH), f"{name} is removed.")


async def _link(view: View, name: str) -> None:
    """Make a link and show it, this once."""
    async with acting(view, Act.manage_people, ALL) as connection:
        await find_person(connection, name)
        site = view.settings.dashboard.url or str(ui.context.client.request.base_url)  # as they reach it themselves
        url = await one_time_link(connection, site, name, by=view.person.name)
    with dialog("One-time link") as asked:
        el("p", "dialog-words", f"Whoever opens it within ten minutes is {name}, once. It is shown only now.")
        el("code", "command", url, data_link="1")
        with el("div", "dialog-acts"):
            button("Done", lambda: asked.submit(True), kind="main")
    await asked
    asked.delete()
    then(view, view.link(PATH))
