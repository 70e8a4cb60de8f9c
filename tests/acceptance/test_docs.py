"""The documentation is run: every command and snippet of every page; and held against the code that it describes."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel

import circuit_script
from circuit_script.config import Settings
from circuit_script.execution.authoring.place import EVENTS, OBJECTS
from circuit_script.governor import Limits
from tests import servers
from tests.acceptance.docs_runner import ROOT, Block, Command, Story, blocks_of, commands_of, differs, told
from tests.acceptance.platform import free_port

DOCS = ROOT / "docs"
DEPLOY = ROOT / "deploy"
TARGETS = ROOT / "src" / "circuit_script" / "cli" / "init" / "targets"
README = ROOT / "README.md"
PAGES = [README, *sorted(path for path in DOCS.rglob("*.md") if any(blocks_of(path)))]
ALL_PAGES = sorted(DOCS.rglob("*.md"))
QUICKSTART = "quickstart.md"
MOST_NOT_RUN = 16


def name_of(page: Path) -> str:
    return page.name if page == README else str(page.relative_to(DOCS))


@pytest.fixture
def story_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="cs-", dir="/tmp"))
    folder.chmod(0o711)  # the embedded server's user walks through it
    yield folder
    for app in folder.iterdir():
        if (app / ".circuit").exists():
            asyncio.run(servers.remove(app))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.story
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_shows_works(
    page: Path, story_folder: Path, request: pytest.FixtureRequest, record_property: Any
) -> None:
    blocks = blocks_of(page)
    settings = {}
    if name_of(page) != QUICKSTART and any(each.language == "console" and not each.not_run for each in blocks):
        # The quickstart starts servers of its own.
        settings["DATABASE_URL"] = request.getfixturevalue("database")
        settings["CIRCUIT_TEST_DATABASE_URL"] = request.getfixturevalue("embedded_server").superuser
    began = time.perf_counter()
    with told(Story(story_folder, free_port(), settings)) as story:
        story.tell(blocks)
    took = time.perf_counter() - began
    if settings or name_of(page) == QUICKSTART:
        record_property("figure", f"docs/{name_of(page)}: {story.ran} blocks run in {took:.1f} s")
    for each in story.skipped:
        print(f"not run: {each}")


def test_what_is_not_run_says_why_and_is_rare() -> None:
    skipped = [block for page in PAGES for block in blocks_of(page) if block.not_run]
    for block in skipped:
        print(f"{block.place}: {block.not_run}")
    assert all(len(block.not_run or "") > 10 for block in skipped)
    assert len(skipped) <= MOST_NOT_RUN


def test_the_runner_tells_wrong_output_from_right_output() -> None:
    assert differs(["a", "…", "c …"], "a\nb\nc 17\n") is None
    assert differs(["status  ok"], "\x1b[32mstatus\x1b[0m ok\n") is None
    assert differs(["a", "c"], "c\na\n") == "c"
    assert differs(["a b"], "a\n") == "a b"


def test_the_runner_reads_commands_with_their_output() -> None:
    block = Block("docs/x.md:7", "console", "$ one \\\n    two\nsaid\n…\n$ three\n", None, False, None)
    assert commands_of(block) == [
        Command("docs/x.md:8", "one two", ("said", "…")),
        Command("docs/x.md:12", "three", ()),
    ]


def test_the_runner_names_page_and_line_of_what_fails(tmp_path: Path) -> None:
    block = Block("docs/x.md:7", "console", "$ echo one\ntwo\n", None, False, None)
    with told(Story(tmp_path, free_port())) as story, pytest.raises(AssertionError, match=r"^docs/x\.md:8: `echo one`"):
        story.tell([block])


def nav(entries: Any) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else nav(value)


def site() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    return found


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page() -> None:
    assert sorted(nav(site()["nav"])) == sorted(map(name_of, ALL_PAGES))


def test_every_page_of_an_error_is_in_the_documentation() -> None:
    shipped = sorted((ROOT / "src" / "circuit_script" / "troubleshooting").glob("*.md"))
    linked = sorted((DOCS / "troubleshooting").glob("*.md"))
    assert [page.name for page in linked] == [page.name for page in shipped], "run scripts/link_pages.py"
    assert [page.resolve() for page in linked] == shipped


class Loads(HTMLParser):
    """What a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        loads = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}.get(tag)
        address = given.get(loads or "") or ""
        if address.startswith(("http:", "https:", "//")) and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(address)


@pytest.mark.slow
def test_the_built_site_has_no_broken_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")  # a build has its cache and its site beside the settings
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for part in ("deploy", "src"):
        (tmp_path / part).symlink_to(ROOT / part)
    built = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(ALL_PAGES)
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text("utf-8"))
        assert loads.found == [], page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )['\"]?(?:https?:)?//", style.read_text("utf-8")), style


def settings_of(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from settings_of(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}", field.default


def rows_of(page: str) -> dict[str, str]:
    text = (DOCS / "reference" / page).read_text("utf-8")
    return dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", text, re.MULTILINE))


def test_every_setting_stands_in_the_reference_with_its_default() -> None:
    listed = rows_of("configuration.md")
    known = {name: default for name, default in settings_of(Settings) if name != "folder"}
    assert sorted(listed) == sorted(known)
    for name, default in known.items():
        if default in (None, "") or default in ({}, ()):
            assert listed[name] in ("none", "the vendor's"), name
        elif listed[name] not in ("the vendor's", "three are shipped"):
            written = yaml.safe_load(listed[name].strip("`"))
            assert written == (list(default) if isinstance(default, tuple) else default), name


def test_every_limit_stands_in_the_reference_with_its_default() -> None:
    listed = rows_of("limits.md")
    for name, ceiling in Limits().as_dict().items():
        assert float(listed.pop(name).split(" ")[0].replace(",", "")) == ceiling, name
    assert sorted(listed) == ["answer_bytes", "blocked_loop", "effect_bytes", "processes"]


def test_every_public_name_stands_in_the_reference() -> None:
    text = (DOCS / "reference" / "api.md").read_text("utf-8")
    listed = set(re.findall(r"^::: circuit_script\.(\w+)$", text, re.MULTILINE))
    assert listed == set(circuit_script.__all__) - {"log"}  # another name of CircuitLog; the page says so
    assert "`log` is `CircuitLog`" in text


def test_every_event_and_object_stands_in_the_reference() -> None:
    assert set(rows_of("events.md")) >= set(EVENTS)
    text = (DOCS / "reference" / "events.md").read_text("utf-8")
    assert [name for name in OBJECTS if f"`{name}`" not in text] == []


def test_every_promise_lives_where_it_says_and_names_tests_that_exist() -> None:
    kept = (DOCS / "promises.md").read_text("utf-8").partition("## Not kept")[0]
    named = [path for command in re.findall(r"`pytest ([^`]+)`", kept) for path in re.findall(r"tests/\S+", command)]
    named += [f"src/circuit_script/{path}" for path in re.findall(r"`([a-z_/]+/(?:[\w.]+\.\w+)?|\w+\.py)`", kept)]
    named = [path.replace("src/circuit_script/tests/", "tests/") for path in named]
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", [path.name for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))])
def test_kubernetes_accepts_the_manifest(name: str) -> None:
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text("utf-8")))
    assert len(documents) > 1
    for document in documents:
        kubernetes_validate.validate(document, desired_version="1.33", strict=True)


def test_the_app_platforms_port_is_the_images() -> None:
    app = yaml.safe_load((DEPLOY / "app.yaml").read_text("utf-8"))
    assert app["services"][0]["http_port"] == 8000
    assert app["services"][0]["envs"][0]["key"] == "DATABASE_URL"
    assert "CIRCUIT_GATEWAY__PORT=8000" in (TARGETS / "docker" / "Dockerfile").read_text("utf-8")
