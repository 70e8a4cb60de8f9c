"""What is wrong with a setting, in our words: where its value came from, what it must be, and what to do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from circuit_script.errors import ConfigError
from circuit_script.settings_origin import (
    ARGUMENT,
    DEFAULT,
    ENVIRONMENT,
    FILE,
    OTHER_NAMES,
    PREFIX,
    Origins,
    Path_,
)

NAMES = {other: path for path, other in OTHER_NAMES.items()}
OPTIONS: dict[Path_, str] = {("gateway", "port"): "--port"}  # settings that the command line may give
# Variables that begin like settings and are read elsewhere.
OWN = frozenset(
    {"CIRCUIT_FAILPOINTS", "CIRCUIT_FOLDER", "CIRCUIT_TEST_DATABASE_URL", "CIRCUIT_GOVERNED_IN_TESTS"}
    | {"CIRCUIT_SECRETS_KEY"}
)
_OF_SECRETS = re.compile(r"CIRCUIT_SECRET_[^_]", re.IGNORECASE)  # CIRCUIT_SECRET_ACME__CRM_TOKEN: the rest is free
FOLDER = "folder"  # no setting, though it stands among them
_WORDS = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be a text",
    "tuple": "must be a list",
    "list": "must be a list",
    "dict": "must be a table",
    "model": "must be a table",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "missing": "is missing",
}


def refused(error: ValidationError, settings: type[BaseModel], folder: Path, given: Mapping[str, Any]) -> ConfigError:
    """The error that tells every fault. ``given`` are the arguments; no value is shown, since some are secrets."""
    origins = Origins(folder / FILE, given)
    told: dict[str, None] = {}
    cures: dict[str, None] = {}
    for each in error.errors():
        path = _path(each["loc"])
        where, cure = _place(path, origins.near(path), folder)
        words = _said(path, each["type"], each.get("ctx") or {}, each["msg"], settings)
        told[f"{where}: {words}"] = None
        cures[cure] = None
    return ConfigError(" ".join(_ended(each) for each in told), cure=" ".join(cures))


def unreadable(error: SettingsError) -> ConfigError:
    """The error for a variable that should be JSON and is none."""
    found = re.search(r'field "(\w+)"', str(error))
    begin = f"{PREFIX}{found[1]}".upper() if found else PREFIX
    names = [name for name, text in os.environ.items() if name.upper().startswith(begin) and not _is_json(text)]
    cure = "Give it as JSON, as in CIRCUIT_LIMITS='{\"callouts\": 5}'."
    return ConfigError(
        f"environment {', '.join(names) or begin}: {found[1] if found else 'it'} must be JSON.", cure=cure
    )


def refuse_unknown_variables(settings: type[BaseModel]) -> None:
    """Raises ConfigError for a variable that looks like a setting and is none; others' variables may begin so too."""
    for name in os.environ:
        first, nested, _ = name.upper().removeprefix(PREFIX).lower().partition("__")
        path: Path_ = (first,)
        if (
            not name.upper().startswith(PREFIX)
            or name.upper() in OWN
            or _OF_SECRETS.match(name)
            or (first in settings.model_fields and path not in OTHER_NAMES)
        ):
            continue
        known = {each: f"{PREFIX}{each.upper()}" for each in settings.model_fields if each != FOLDER}
        known |= {other[0]: variable for other, variable in OTHER_NAMES.items()}
        near = get_close_matches(first, known, n=1, cutoff=0.75)
        if near or nested:
            rest = name[len(PREFIX) + len(first) :]
            meant = f" Did you mean {known[near[0]]}{rest}?" if near else f" There are {', '.join(known.values())}."
            raise ConfigError(f"environment {name}: there is no such setting.{meant}", cure="Unset it, or rename it.")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."


def _place(path: Path_, origin: str, folder: Path) -> tuple[str, str]:
    """Where the value stands, and what to do there."""
    if origin.startswith(ENVIRONMENT):
        return origin, f"Change {origin.removeprefix(ENVIRONMENT)}, or unset it."
    if origin == ARGUMENT:
        option = OPTIONS.get(path, "the argument")
        return f"argument {option}" if path in OPTIONS else ARGUMENT, f"Give {option} another value."
    return str(folder / (FILE if origin == DEFAULT else origin)), "Mend it and start again."


def _path(loc: Sequence[int | str]) -> Path_:
    path = NAMES.get(str(loc[0]), (str(loc[0]),)) + tuple(map(str, loc[1:])) if loc else ()
    return path[:2] if path[:1] == ("limits",) else path  # a limit may be of two kinds, and pydantic names the kind too


def _said(path: Path_, kind: str, context: Mapping[str, Any], otherwise: str, settings: type[BaseModel]) -> str:
    name = ".".join(path)
    if path[:1] == ("limits",):
        return f"{name} {_WORDS['dict' if len(path) == 1 else 'float']}"
    if kind == "extra_forbidden":
        return f"there is no setting {name}.{_nearest(path, settings)}"
    if kind == "string_pattern_mismatch":
        return f"{name} {_of_pattern(path)}"
    words = _WORDS.get(kind) or _WORDS.get(kind.partition("_")[0])
    return f"{name} {words.format_map(context)}" if words else f"{name}: {otherwise}"


def _of_pattern(path: Path_) -> str:
    match path[-1]:
        case "url":
            return "must begin with http:// or https://"
        case "app" if len(path) > 1:
            return 'must be like "module:name" or "module:factory()"'
        case _:
            return 'must be the name of a module, like "app"'


def _nearest(path: Path_, settings: type[BaseModel]) -> str:
    """The setting that was probably meant: of the same name elsewhere, else in the same table, else anywhere."""
    table = _table(path[:-1], settings)
    near = [".".join((*path[:-1], each)) for each in get_close_matches(path[-1], table, n=1)]
    whole = [".".join(each) for each in _known(settings)]
    same = [each for each in whole if each.rpartition(".")[2] == path[-1]]
    if found := same or near or get_close_matches(".".join(path), whole, n=1):
        return f" Did you mean {found[0]}?"
    return f" There are {', '.join(table)}." if table else ""


def _table(path: Path_, settings: type[BaseModel]) -> list[str]:
    """The names that a table may have; none where its author chooses them."""
    kind: Any = settings
    for name in path:
        if _is_model(kind):
            field = kind.model_fields.get(name)
            kind = field.annotation if field else None
        else:
            kind = next(reversed(get_args(kind)), None)
    return [name for name in kind.model_fields if name != FOLDER] if _is_model(kind) else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _known(settings: type[BaseModel], above: Path_ = ()) -> list[Path_]:
    found: list[Path_] = []
    for name, field in settings.model_fields.items():
        path = (*above, name)
        kind: Any = field.annotation
        if _is_model(kind):
            found += _known(kind, path)
        elif path != (FOLDER,):
            found.append(path)
    return found
