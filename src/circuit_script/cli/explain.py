"""``circuit-script explain``: the page of an error."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated

import typer
from rich.markdown import Markdown

from circuit_script.cli.output import add_rows, console, print_json, table
from circuit_script.pages import Page, find_page, page_names

NAME = "explain"
EXAMPLES = "Examples:  circuit-script explain  ·  circuit-script explain port-taken  ·  circuit-script explain --json"


def complete_page(incomplete: str) -> list[str]:
    """Pages whose name begins so, for the shell."""
    return [name for name in page_names() if name.startswith(incomplete)]


def run(
    page: Annotated[
        str | None, typer.Argument(help="The page that the error names; none lists all.", autocompletion=complete_page)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Explain an error: what you see, why, what to do."""
    if page is None:
        _list(as_json)
        return
    found = find_page(page)
    if found is None:
        raise _unknown(page)
    if as_json:
        print_json({"page": found.name, "title": found.title, "text": found.text})
        return
    out = console()
    if out.is_terminal:
        out.print(Markdown(found.text))
    else:
        print(found.text, end="")


def _list(as_json: bool) -> None:
    pages = [page for name in page_names() if (page := find_page(name)) is not None]
    if as_json:
        print_json([{"page": each.name, "title": each.title} for each in pages])
        return
    rows = table("page", "explains")
    console().print(add_rows(rows, [_row(each) for each in pages]))


def _row(page: Page) -> tuple[str, str]:
    return page.name, page.title


def _unknown(name: str) -> typer.BadParameter:
    near = get_close_matches(name, page_names(), n=1)
    cure = f"Did you mean {near[0]!r}?" if near else "circuit-script explain lists all of them."
    return typer.BadParameter(f"There is no page {name!r}. {cure}", param_hint="PAGE")
