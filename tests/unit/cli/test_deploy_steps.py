"""What a person sees of the steps of a deploy."""

from __future__ import annotations

import io

from rich.console import Console

from circuit_script.cli.deploy_steps import Steps


def test_what_others_wrote_is_shown_and_not_obeyed() -> None:
    screen = io.StringIO()
    with Steps(Console(file=screen, width=200)).step("watch") as step:
        step.detail = "back by [bold]ada[/]: \x1b]0;mine\x07\x1b[2Jnothing"
    said = screen.getvalue()
    assert "back by [bold]ada[/]: " in said
    assert not {"\x1b", "\x07"} & set(said)
