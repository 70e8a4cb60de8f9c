"""What a person types for a dead letter: its number."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

LONGEST = 18  # digits: more are no bigint


def letter_number(said: str) -> int:
    """Raises BadParameter, which says what a letter's number looks like."""
    if said.isascii() and said.isdecimal() and len(said) <= LONGEST and int(said):
        return int(said)
    raise typer.BadParameter(f"{said!r} is no letter's number: that looks like 12, as dead list shows it")


class OfLetters(TyperCommand):
    """A command that takes such numbers: one below zero looks like an option, and is told what it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        said = [*args]  # the parser takes them out
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer's NoSuchOption, which has no public name
            option = getattr(error, "option_name", None)
            if isinstance(option, str) and re.fullmatch(r"-\d+", option):
                letter_number(next((each for each in said if each.startswith(option)), option))
            raise


Numbers = Annotated[
    list[int] | None,
    typer.Argument(help="Numbers of letters, as dead list shows them.", parser=letter_number, metavar="LETTER"),
]
Number = Annotated[
    int, typer.Argument(help="Its number, as dead list shows it.", parser=letter_number, metavar="LETTER")
]
