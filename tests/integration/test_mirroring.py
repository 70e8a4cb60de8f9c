"""A worker compares with an old service: the live release runs in real children, and nothing of it is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from circuit_script.config import CalloutSettings, Settings
from circuit_script.events import mirrors
from circuit_script.events.ledger import Ledger
from circuit_script.events.mirrors import OldAnswer
from circuit_script.events.parity import compared
from circuit_script.settings_mirror import MirrorSettings
from circuit_script.wiring import mirroring
from tests.old_service import old_service
from tests.road import Road, contact, open_road
from tests.workers import working

APP = """
import os
from circuit_script import CircuitDB, http, llm, log, send_webhook, trigger

HERE = "http://127.0.0.1:{port}/asked"


@trigger("Contact", ["afterInsert"])
async def score(context):
    for lead in context.new_records:
        if lead["name"] == "exit":
            os._exit(3)
        async with context.record(lead):
            match lead["name"]:
                case "callout":
                    await http.get("https://api.example.com/company")
                case "caught":
                    try:
                        await http.get("https://api.example.com/company")
                    except Exception:
                        pass
                case "library":
                    import httpx
                    httpx.get("https://api.example.com/company")
                case "model":
                    await llm.complete("Is it a good lead?")
                case "named":
                    assert (await http.get(HERE)).status_code == 200
                case "raises":
                    raise ValueError("no seats")
                case "note":
                    await CircuitDB.insert("Note", {{"body": "scored"}})
                    await send_webhook("sales", {{"lead": lead["id"]}})
            if lead["name"] != "silent":
                await CircuitDB.update("Contact", {{"id": lead["id"], "score": 77 if lead["name"] == "off" else 78}})
"""


SAME = ("same", "score: old 78, ours 78")


@dataclass
class Stage:
    road: Road
    ledger: Ledger
    heard: list[Any]

    async def judged(self, *names: str) -> Mapping[str, tuple[str, str]]:
        """What became of a lead of each name, and what is said of it; the old service gave 78 points to all."""
        rows = [contact(name, name=name).row() for name in names]
        await mirrors.keep(self.ledger, rows, [OldAnswer(200, "application/json", b'{"score": 78}', 5.0)] * len(rows))
        await self.road.until("SELECT count(*) FROM circuit.mirrored WHERE state IN ('pending', 'taken')", [0])
        found = await self.road.rows(
            "SELECT e.record, m.state, m.why, m.differences FROM circuit.mirrored m "
            "JOIN circuit.events e ON e.delivery = m.delivery"
        )
        return {record: (state, why or differences[0]["said"]) for record, state, why, differences in found}


@asynccontextmanager
async def comparing(folder: Path, database: str, **more: Any) -> AsyncIterator[Stage]:
    with old_service() as old:
        (folder / "app.py").write_text(APP.format(port=old.port))
        settings = Settings(
            folder=folder,
            database_url=database,
            mirror={"standard": MirrorSettings(url=old.url, compare={"score": "Contact.score"}, **more)},
            callouts=CalloutSettings(private=("127.0.0.1",)),
            addresses={"sales": {"url": "https://sales.example.com/hook"}},
        )
        async with open_road(database) as road, working(settings, database):
            ledger = Ledger(road.connect)
            try:
                yield Stage(road, ledger, old.heard)
            finally:
                await ledger.close()


async def test_each_lead_is_judged_by_itself_and_nothing_of_it_leaves(tmp_path: Path, database: str) -> None:
    async with comparing(tmp_path, database, callouts=("127.0.0.1",)) as stage:
        found = await stage.judged(
            "fine", "off", "raises", "silent", "note", "named", "callout", "caught", "library", "model"
        )
        assert found["fine"] == found["note"] == found["caught"] == found["named"] == SAME
        assert found["off"] == ("different", "score: old 78, ours 77")
        assert found["raises"][0] == "different"
        assert "no seats" in found["raises"][1]
        assert found["silent"] == ("different", "score: old 78, ours nothing (it writes no such field)")
        for name in ("callout", "library"):
            assert found[name][0] == "incomparable", found[name]
            assert "api.example.com" in found[name][1]
            assert "[mirror.standard] callouts" in found[name][1]
        assert found["model"][0] == "incomparable"
        assert "models = true" in found["model"][1]
        assert {each.line for each in stage.heard} == {"GET /asked HTTP/1.1"}

        found = await stage.judged("fine-2", "exit", "other-2")  # one ends the process of its whole batch
        assert found["fine-2"] == found["other-2"] == SAME
        assert found["exit"][0] == "different"
        assert "exit" in found["exit"][1]

        for table in ("effects", "records", "executions", "queue"):
            assert await stage.road.rows(f"SELECT count(*) FROM circuit.{table}") == [0], table


async def test_an_answer_of_any_kind_keeps_back_no_other(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(answer: bytes, *_: Any) -> Any:
        if b"odd" in answer:
            raise RuntimeError("nobody has foreseen it")
        return compared(answer, *_)

    monkeypatch.setattr(mirroring, "compared", failing)
    async with comparing(tmp_path, database) as stage:
        odd = [contact("odd", name="odd").row()]
        await mirrors.keep(stage.ledger, odd, [OldAnswer(200, "application/json", b'{"score": "odd"}', 5.0)])
        found = await stage.judged("fine")
        assert found["fine"] == SAME
        assert found["odd"] == ("incomparable", "the two cannot be compared: RuntimeError")
