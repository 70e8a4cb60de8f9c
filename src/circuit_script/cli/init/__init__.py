"""``circuit-script init``: a new app that scores leads, from the files in ``template/``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from circuit_script.cli.output import print_json
from circuit_script.errors import ScaffoldRefused

NAME = "init"
EXAMPLES = "Examples:  circuit-script init acme && cd acme && circuit-script dev  ·  circuit-script init ."

_TEMPLATE = files("circuit_script.cli.init") / "template"

# What is written → its template. Some have another name there, or our own tools would take them for ours.
FILES = {
    "app/__init__.py": None,
    "app/triggers.py": "app/triggers.py.txt",
    "app/endpoints.py": "app/endpoints.py.txt",
    "tests/test_triggers.py": "tests/test_triggers.py.txt",
    "tests/test_endpoints.py": "tests/test_endpoints.py.txt",
    "circuit.toml": "circuit.toml",
    "pytest.ini": "pytest.ini.txt",
    "README.md": "README.md",
    "requirements.txt": "requirements.txt",
    ".gitignore": "gitignore.txt",
    ".github/workflows/test.yml": "workflow.yml",
}


def read_template(name: str) -> str:
    """One file of the new app, by the name that it has there."""
    template = FILES[name]
    return "" if template is None else _TEMPLATE.joinpath(template).read_text("utf-8")


TRIGGERS = read_template("app/triggers.py")


def run(
    name: Annotated[str, typer.Argument(help="The app's folder; made if it is not there. A dot is this one.")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Make a new app: a trigger and an endpoint that score leads, their tests, its settings."""
    folder = scaffold(Path(name))
    if as_json:
        print_json({"folder": str(folder.resolve()), "files": sorted(FILES)})
        return
    here = folder.resolve() == Path.cwd()
    print(f"made {folder.resolve() if here else folder}: {', '.join(FILES)}\n\nnext:")
    steps = [
        *([] if here else [(f"cd {folder}", "")]),
        ("circuit-script test", "its tests, on a database of their own"),
        ("circuit-script dev", "run it; what you save is live at once"),
        ("circuit-script send gohighlevel", "in a second terminal: a signed webhook about a new contact"),
    ]
    for command, why in steps:
        print(f"  {command:32} {why}".rstrip())


def scaffold(folder: Path, files: Mapping[str, str | None] | None = None) -> Path:
    """Write a new app's files; ``files`` are written besides them or in their place, those that are None not at all.

    Raises ScaffoldRefused rather than touch a file that is there.
    """
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][\w .-]*", name):
        raise ScaffoldRefused(f"{name!r} is not a name for an app.", cure="Use letters, digits, '-' and '_'.")
    wanted = {each: read_template(each).replace("{name}", name) for each in FILES} | dict(files or {})
    content = {each: text for each, text in wanted.items() if text is not None}
    taken = [each for each in content if (folder / each).exists()]
    if taken:
        cure = "Choose another folder; nothing was changed."
        raise ScaffoldRefused(f"{folder / taken[0]} is there already.", cure=cure)
    try:
        for each, text in content.items():
            path = folder / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise ScaffoldRefused(
            f"{error.filename}: {error.strerror}.",
            cure="Choose a folder that this user can write to.",
            page="folder-not-writable",
        ) from None
    return folder
