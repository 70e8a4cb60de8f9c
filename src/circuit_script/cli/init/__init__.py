"""``circuit-script init``: a new app that scores leads, from the files in ``template/``; where it runs: `targets`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from circuit_script.cli.init.targets import CI, Placed, Target, content, place
from circuit_script.cli.output import print_json
from circuit_script.config import FILE
from circuit_script.errors import ScaffoldRefused

NAME = "init"
EXAMPLES = (
    "Examples:  circuit-script init acme && cd acme && circuit-script dev  ·  circuit-script init .  ·  "
    "circuit-script init . --target docker --ci github"
)
REQUIREMENTS = "requirements.txt"

_TEMPLATE = files("circuit_script.cli.init") / "template"
GUIDES = {
    Target.heroku: "how-to/heroku.md",
    Target.docker: "how-to/docker.md",
    Target.systemd: "how-to/systemd.md",
    CI.github: "how-to/github-actions.md",
}

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
    target: Annotated[list[Target] | None, typer.Option(help="Add what this needs to run the app.")] = None,
    ci: Annotated[list[CI] | None, typer.Option(help="Add what tests, deploys and rolls back the app.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of a target that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Make a new app: a trigger and an endpoint that score leads, their tests, its settings.

    With --target or --ci an app that is there gets what it lacks of that; nothing else is touched.
    """
    folder, kinds = Path(name), [*(target or ()), *(ci or ())]
    if force and not kinds:
        raise typer.BadParameter("it replaces files of a target: say --target or --ci, too", param_hint="--force")
    made = not (kinds and is_app(folder))
    if made:
        scaffold(folder)
    placed = add(folder, kinds, force=force)
    if as_json:
        said = {"folder": str(folder.resolve()), "files": sorted(FILES) if made else []}
        print_json(said | ({"target": {each.file: each.state for each in placed}} if kinds else {}))
        return
    if made:
        _tell_made(folder)
    if kinds:
        _tell_placed(folder, placed, kinds)


def is_app(folder: Path) -> bool:
    """Whether there is an app already."""
    return (folder / FILE).is_file() or (folder / "app").is_dir() or (folder / "app.py").is_file()


def add(folder: Path, kinds: Sequence[Target | CI], *, force: bool) -> list[Placed]:
    """Add what these need to the app in ``folder``; what is there stays, but with ``force``. Raises ScaffoldRefused."""
    placed: list[Placed] = []
    try:
        if kinds:
            placed += place(folder, {REQUIREMENTS: read_template(REQUIREMENTS)}, force=False)
            requirements = (folder / REQUIREMENTS).read_text("utf-8", "replace")
        for kind in kinds:
            placed += place(folder, content(kind, folder.resolve().name, requirements), force=force)
    except OSError as error:
        raise _closed(error) from None
    return [each for each in placed if each.file != REQUIREMENTS or each.state == "written"]


def environments(folder: Path) -> set[str]:
    """The names below [env] in circuit.toml; none where nobody can read it."""
    try:
        found = tomllib.loads((folder / FILE).read_text("utf-8")).get("env")
    except (OSError, ValueError):
        return set()
    return set(found) if isinstance(found, dict) else set()


def _tell_made(folder: Path) -> None:
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


def _tell_placed(folder: Path, placed: Sequence[Placed], kinds: Sequence[Target | CI]) -> None:
    print()
    for each in placed:
        print(f"{each.state:<9} {each.file}")
    if any(each.state == "kept" for each in placed):
        print("\nWhat was kept is not as it would be made now; --force replaces it.")
    if any(isinstance(each, CI) for each in kinds) and not environments(folder):
        print(f"\nIt deploys to [env.staging] and [env.production], which {FILE} lacks: take away the # before them.")
    print(f"\nread on in the documentation: {', '.join(GUIDES[kind] for kind in kinds)}")


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
        raise _closed(error) from None
    return folder


def _closed(error: OSError) -> ScaffoldRefused:
    return ScaffoldRefused(
        f"{error.filename}: {error.strerror}.",
        cure="Choose a folder that this user can write to.",
        page="folder-not-writable",
    )
