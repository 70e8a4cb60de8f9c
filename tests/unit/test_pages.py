from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import circuit_script
from circuit_script.cli.verbs import VERBS
from circuit_script.errors import CircuitError
from circuit_script.pages import find_page, page_names, page_text

SOURCE = Path(circuit_script.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "troubleshooting"
LONGEST = 60  # lines


def errors() -> set[type[CircuitError]]:
    for module in pkgutil.walk_packages(circuit_script.__path__, "circuit_script."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(kind: type[CircuitError]) -> Iterator[type[CircuitError]]:
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    return {kind for kind in below(CircuitError) if kind.__module__.startswith("circuit_script")}


@cache
def texts() -> tuple[set[tuple[str, str]], set[str]]:
    """(file, page) wherever the source says ``page="…"``, and every string where a page may be named."""
    named, strings = set(), set()
    quoted = [f'"{name}"' for name in page_names()]
    for path in SOURCE.rglob("*.py"):
        text = path.read_text("utf-8")
        if not re.search(r"\bpage\b", text) and not any(name in text for name in quoted):
            continue
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.keyword(arg="page", value=ast.Constant(value=str(page))):
                    named.add((path.name, page))
                case ast.Assign(targets=[ast.Name(id="page")], value=ast.Constant(value=str(page))):
                    named.add((path.name, page))
                case ast.Constant(value=str(said)):
                    strings.add(said)
    return named, strings


def test_every_error_has_its_page() -> None:
    found = errors()
    assert len(found) > 8
    for kind in found:
        assert kind.page in page_names(), f"{kind.__name__} has no page {kind.page}"


def test_every_page_that_the_source_names_exists() -> None:
    found, _ = texts()
    assert len(found) > 20
    for file, page in found:
        assert page in page_names(), f"{file} names the page {page}"


def test_every_page_is_named_by_the_source() -> None:
    _, strings = texts()
    assert set(page_names()) - strings == set()


@pytest.mark.parametrize("name", page_names())
def test_a_page_says_what_is_seen_why_and_what_to_do(name: str) -> None:
    page = find_page(name)
    assert page is not None
    assert page.text.startswith(f"# {page.title}\n\n**You see** ")
    assert page.text.index("**You see**") < page.text.index("**Why.**") < page.text.index("**What to do.**")
    assert page.text.count("\n") < LONGEST
    assert page.text.endswith("\n")
    assert max(map(len, page.text.splitlines())) <= 130
    assert page.text.count("```") % 2 == 0


def test_the_commands_of_a_page_are_verbs_that_there_are() -> None:
    verbs = {verb.name for verb in VERBS}
    for name in page_names():
        for command in re.findall(r"circuit-script ([a-z]+)", page_text(name) or ""):
            assert command in verbs, f"{name}: circuit-script {command}"


def test_the_documentation_has_the_same_pages_and_its_index_lists_them() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == {*page_names(), "index"}
    listed = re.findall(
        r"^\| \[([a-z-]+)\]\(\1\.md\) \| (.+) \|$", (DOCS / "index.md").read_text("utf-8"), re.MULTILINE
    )
    assert [name for name, _ in listed] == list(page_names())
    for name, title in listed:
        page = find_page(name)
        assert page is not None
        assert page.title == title


@pytest.mark.parametrize("name", ["", "nothing", "../errors", "index", "config.md"])
def test_there_is_no_other_page(name: str) -> None:
    assert page_text(name) is None


def test_a_case_may_name_a_page_of_its_own() -> None:
    assert CircuitError("it").page == "error"
    assert CircuitError("it", page="port-taken").page == "port-taken"
