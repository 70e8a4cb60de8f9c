from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from circuit_script.execution.outcome import HandlerSpec
from circuit_script.releases import content_hash, make_live
from tests.road import SCORE, Road, contact, open_road

OTHER = HandlerSpec("other", (("Contact", "afterInsert"),), batch_size=5, file="app.py", line=7, doc="Does it.")


@pytest.fixture
async def road(database: str) -> AsyncIterator[Road]:
    async with open_road(database) as made:
        yield made


async def routes(road: Road) -> list[object]:
    return await road.rows(
        "SELECT r.object, r.event, h.name FROM circuit.routes r JOIN circuit.handlers h ON h.id = r.handler "
        "ORDER BY 1, 2, 3"
    )


async def test_a_release_is_recorded_with_its_handlers_and_events_are_routed_to_them(road: Road) -> None:
    release = await road.live(SCORE, OTHER)

    assert sorted(each.name for each in release.handlers.values()) == ["other", "score"]
    ((hash_, manifest),) = await road.rows("SELECT content_hash, manifest FROM circuit.releases")
    assert hash_ == release.content_hash
    assert manifest[1] == {
        "name": "other", "routes": [["Contact", "afterInsert"]], "batch_size": 5,
        "limits": OTHER.limits.as_dict(), "file": "app.py", "line": 7, "doc": "Does it.",
        "endpoint": None,
    }  # fmt: skip
    assert await road.rows("SELECT release FROM circuit.live") == [release.id]
    await road.take_in(contact("c1"))
    assert sorted(await road.rows("SELECT handler FROM circuit.queue")) == sorted(release.handlers)
    assert await road.rows("SELECT handled FROM circuit.events") == [2]


async def test_the_next_release_replaces_routes_and_keeps_the_ids_of_handlers(road: Road) -> None:
    first = await road.live(SCORE, OTHER)
    second = await road.live(OTHER, HandlerSpec("third", (("Task", "afterInsert"),)))

    assert await routes(road) == [("Contact", "afterInsert", "other"), ("Task", "afterInsert", "third")]
    other = next(id_ for id_, each in first.handlers.items() if each.name == "other")
    assert second.handlers[other].name == "other"
    assert await road.rows("SELECT release FROM circuit.live") == [second.id]
    assert first.id != second.id


async def test_the_same_content_is_the_same_release_and_can_come_back(road: Road) -> None:
    first = await road.live(SCORE)
    await road.live(OTHER)
    again = await road.live(SCORE)

    assert again.id == first.id
    assert await road.rows("SELECT count(*) FROM circuit.releases") == [2]
    assert await road.rows("SELECT release FROM circuit.live") == [first.id]


async def test_starting_again_and_again_uses_up_no_ids_of_handlers(road: Road) -> None:
    for _ in range(20):
        await road.live(SCORE, OTHER)

    last = await road.live(SCORE, OTHER, HandlerSpec("third", ()))

    assert max(last.handlers) == 3


async def test_a_handler_that_names_a_route_twice_has_it_once(road: Road) -> None:
    await road.live(HandlerSpec("twice", (("Contact", "afterInsert"), ("Contact", "afterInsert"))))

    assert await routes(road) == [("Contact", "afterInsert", "twice")]


async def test_an_app_without_handlers_routes_nothing(road: Road) -> None:
    await road.live(SCORE)
    await road.live()

    assert await routes(road) == []


async def test_workers_that_start_at_the_same_moment_agree(road: Road) -> None:
    async def start() -> int:
        async with road.pool.connection() as connection:
            return (await make_live(connection, "same", [SCORE, OTHER])).id

    ids = await asyncio.gather(*(start() for _ in range(6)))

    assert len(set(ids)) == 1
    assert len(await routes(road)) == 4


def app(folder: Path, **files: str) -> str:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return content_hash(folder)


def test_the_hash_follows_names_and_contents_of_sources_and_data(tmp_path: Path) -> None:
    first = app(tmp_path, app_py="a = 1", presets__x_toml="y = 1")

    assert content_hash(tmp_path) == first
    assert app(tmp_path, app_py="a = 2") != first
    assert app(tmp_path, app_py="a = 1") == first
    assert app(tmp_path, presets__z_csv="1") != first
    (tmp_path / "presets/z.csv").unlink()
    (tmp_path / "app.py").rename(tmp_path / "main.py")
    assert content_hash(tmp_path) != first


def test_the_hash_does_not_follow_state_settings_and_caches(tmp_path: Path) -> None:
    first = app(tmp_path, app_py="a = 1")

    for path in (".circuit/x.json", ".venv/lib/y.py", "__pycache__/z.py", "circuit.toml", "photo.png", ".git/a.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("changes")

    assert content_hash(tmp_path) == first


def test_contents_cannot_be_moved_between_files_without_changing_the_hash(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"

    assert app(one, a_py="xy", b_py="z") != app(two, a_py="x", b_py="yz")
