"""Fields that a vendor's webhooks call by ids and authors by keys: one field for echoes, handlers and the mirror."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from circuit_script.config import SourceSettings
from circuit_script.effects.unit import UnitOfWork
from circuit_script.events import coalesce
from circuit_script.events.backlog import Queued
from circuit_script.events.batch import Item, Loader
from circuit_script.events.conclude import arrived_of
from circuit_script.events.sources import open_sources
from tests.integration.test_homes import House
from tests.road import Incoming, open_road

TWINS = {"id5": "score", "id6": "plan"}


class Crowd:
    """What a vendor's webhooks tell of contact c1, loaded as the road does; ``twins`` are what is known now."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.twins: Mapping[str, str] = TWINS
        self.loader = Loader(
            house.road.pool, open_sources(SourceSettings()), queued=False, home=house.homes.of, twins=self._twins
        )

    async def _twins(self, tenant: str, object_: str) -> Mapping[str, str]:
        assert (tenant, object_) == ("acme", "Contact")
        return self.twins

    async def queued(self, event: str = "afterUpdate", **fields: Any) -> Queued:
        (delivery,) = await self.house.road.take_in(Incoming("c1", event, fields=fields))
        (id_,) = await self.house.road.rows("SELECT id FROM circuit.events WHERE delivery = %s", delivery)
        return Queued(id_, 1, 5, 0, 0, 0, delivery, None, None, "acme", "Contact", event, "c1")

    async def hears(self, event: str = "afterUpdate", **fields: Any) -> Item:
        """The item of an event, which is settled as it is."""
        items, _ = await self.loader.load([await self.queued(event, **fields)])
        await self.house.settle(UnitOfWork("Contact", ["c1"]), arrived_of(items[0]))
        return items[0]

    async def mirror(self) -> dict[str, Any]:
        data: dict[str, Any] = (await self.house.mirror("c1"))[0]
        return data


@pytest.fixture
async def crowd(database: str) -> AsyncIterator[Crowd]:
    async with open_road(database) as road:
        made = Crowd(House(road))
        await road.run("UPDATE circuit.lanes SET owner = %s, epoch = 1", made.house.worker)
        yield made


async def test_our_write_by_the_key_comes_back_by_the_id_and_is_an_echo(crowd: Crowd) -> None:
    born = await crowd.hears("afterInsert", name="Ann", id6="gold")
    assert born.record == {"id": "c1", "name": "Ann", "id6": "gold", "plan": "gold"}
    assert await crowd.mirror() == {"name": "Ann", "plan": "gold"}
    await crowd.house.write("update", {"id": "c1", "score": 80, "reasons": ["a"]})
    echo = await crowd.hears(name="Ann", id6="gold", id5=80, reasons='["a"]')
    assert echo.echo
    changed = await crowd.hears(name="Ann", id6="silver", id5=80, reasons='["a"]')
    assert not changed.echo
    assert (changed.record["plan"], changed.record["id6"], changed.record["score"]) == ("silver", "silver", 80)
    assert changed.old is not None
    assert (changed.old["plan"], changed.old["id6"], changed.old["score"]) == ("gold", "gold", 80)
    assert await crowd.mirror() == {"name": "Ann", "plan": "silver", "score": 80, "reasons": '["a"]'}


async def test_a_handler_that_comes_late_finds_the_same_echo_as_the_one_that_has_settled_it(crowd: Crowd) -> None:
    await crowd.hears("afterInsert", name="Ann", id6="gold")
    await crowd.house.write("update", {"id": "c1", "score": 80})
    echoed = await crowd.queued(name="Ann", id6="gold", id5=80)
    changed = await crowd.queued(name="Bo", id6="gold", id5=80)
    for row, echo in ((echoed, True), (changed, False)):
        for _ in range(2):
            (item,), _ = await crowd.loader.load([row])
            assert item.echo is echo
            await crowd.house.settle(UnitOfWork("Contact", ["c1"]), arrived_of(item))
    await crowd.house.write("update", {"id": "c1", "name": "Bo", "score": 81})  # of a handler of this event
    (late,), _ = await crowd.loader.load([changed])
    assert not late.echo, "what somebody else changed is no echo for those who come later"


async def test_a_birth_is_an_echo_for_those_who_come_late_too_and_a_strangers_is_for_nobody(crowd: Crowd) -> None:
    theirs = await crowd.queued("afterInsert", name="Ann")
    (item,), _ = await crowd.loader.load([theirs])
    assert not item.echo
    await crowd.house.settle(UnitOfWork("Contact", ["c1"]), arrived_of(item))
    await crowd.house.write("update", {"id": "c1", "name": "Ann"})
    (late,), _ = await crowd.loader.load([theirs])
    assert not late.echo


async def test_a_write_by_the_id_is_known_too(crowd: Crowd) -> None:
    await crowd.hears("afterInsert", name="Ann", id5=1)
    await crowd.house.write("update", {"id": "c1", "id5": 80})
    assert not (await crowd.hears(name="Ann", id5=81)).echo
    await crowd.house.write("update", {"id": "c1", "id5": 82})
    assert (await crowd.hears(name="Ann", id5=82)).echo
    assert not (await crowd.hears(name="Ann", id5=83)).echo


async def test_without_the_keys_events_run_and_nothing_is_lost(crowd: Crowd) -> None:
    crowd.twins = {}
    await crowd.hears("afterInsert", name="Ann", id6="gold")
    await crowd.house.write("update", {"id": "c1", "score": 80})
    item = await crowd.hears(name="Ann", id6="gold", id5=80)
    assert not item.echo
    assert item.record == {"id": "c1", "name": "Ann", "id6": "gold", "id5": 80, "score": 80}


async def test_what_was_told_while_the_keys_were_unknown_hides_no_change(crowd: Crowd) -> None:
    await crowd.hears("afterInsert", name="Ann")
    await crowd.house.write("update", {"id": "c1", "score": 80})
    crowd.twins = {}
    assert not (await crowd.hears(name="Ann", id5=10)).echo  # somebody changed it …
    crowd.twins = TWINS
    back = await crowd.hears(name="Ann", id5=80)  # … and back again
    assert not back.echo
    assert await crowd.mirror() == {"name": "Ann", "score": 80, "id5": None}
    assert (await crowd.hears(name="Ann", id5=80)).echo  # from here on it is sure


async def test_what_was_told_by_ids_is_kept_when_a_later_event_does_not_say_it(crowd: Crowd) -> None:
    crowd.twins = {}
    await crowd.hears("afterInsert", name="Ann", id5=1, id6="gold")
    crowd.twins = TWINS
    tagged = await crowd.hears(tags=["hot"], id6="gold")
    assert tagged.record["score"] == 1
    assert (await crowd.hears(tags=["hot", "new"])).record["score"] == 1
    mirror = await crowd.mirror()
    assert (mirror["plan"], mirror["id6"], mirror["id5"]) == ("gold", None, 1)


async def test_a_field_of_ours_that_somebody_clears_by_its_id_is_a_change(crowd: Crowd) -> None:
    await crowd.hears("afterInsert", name="Ann")
    await crowd.house.write("update", {"id": "c1", "score": 80, "plan": "gold"})
    assert (await crowd.hears(name="Ann", id5=80, id6="gold")).echo
    cleared = await crowd.hears(name="Ann", id5=None, id6="gold")
    assert not cleared.echo
    assert (cleared.record["score"], cleared.record["id5"]) == (None, None)
    assert (await crowd.mirror())["score"] is None


async def test_what_we_cleared_by_the_key_and_somebody_set_again_is_a_change(crowd: Crowd) -> None:
    crowd.twins = {}
    await crowd.hears("afterInsert", name="Ann", id5=5)
    await crowd.house.write("update", {"id": "c1", "score": None, "plan": "gold"})
    crowd.twins = TWINS
    again = await crowd.hears(name="Ann", id5=5, id6="gold")
    assert not again.echo
    assert again.old is not None
    assert again.old["score"] is None


async def test_a_field_that_is_cleared_after_another_update_is_cleared_under_both_names(crowd: Crowd) -> None:
    await crowd.hears("afterInsert", name="Ann", id5=1, id6="gold")
    rows = [await crowd.queued(id5=None), await crowd.queued(name="Anna")]
    rows[1].absorbed = [rows[0]]
    (item,), _ = await coalesce.load(crowd.loader, rows[1:])
    assert (item.record["id5"], item.record["score"]) == (None, None)


async def test_updates_of_which_only_the_newest_runs_have_one_value_under_both_names(crowd: Crowd) -> None:
    await crowd.hears("afterInsert", name="Ann", id5=1, id6="gold")
    rows = [await crowd.queued(id5=2), await crowd.queued(name="Anna")]
    rows[1].absorbed = [rows[0]]
    (item,), _ = await coalesce.load(crowd.loader, rows[1:])
    assert item.record == {"id": "c1", "name": "Anna", "id5": 2, "score": 2, "id6": "gold", "plan": "gold"}
    assert item.incoming == {"id": "c1", "name": "Anna", "score": 2}
    assert item.old == {"id": "c1", "name": "Ann", "id5": 1, "score": 1, "id6": "gold", "plan": "gold"}


async def test_a_record_that_we_make_is_known_as_ours_by_its_keys(crowd: Crowd) -> None:
    await crowd.house.write("insert", {"score": 7, "id6": "gold"})
    await crowd.house.road.run("UPDATE circuit.effects SET left_at = now()")
    items, _ = await crowd.loader.load([await crowd.queued("afterInsert", id5=7, id6="gold", made="today")])
    assert [each.echo for each in items] == [True]
