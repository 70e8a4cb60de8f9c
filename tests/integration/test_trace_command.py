"""``circuit-script trace`` shows what the road has stored."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import UUID

import pytest
import typer

from circuit_script.cli import trace
from circuit_script.config import FILE
from circuit_script.execution.broker.broker import ExecutionBroker
from circuit_script.execution.outcome import Outcome, Work
from circuit_script.telemetry.trace_writer import TraceWriter
from tests.road import SCORE, Incoming, open_road

THEIRS = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def folder(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / FILE).write_text("")
    monkeypatch.setenv("DATABASE_URL", database)
    return tmp_path


async def _break(url: str) -> UUID:
    async def handle(work: Work, broker: ExecutionBroker) -> Outcome:
        await broker.request("query", {"object": "Con\x1b[31mtact", "where": {}})
        raise ValueError("\x1b]0;owned\x07 no price")

    async with open_road(url) as road:
        await road.live(SCORE)
        writer = TraceWriter(road.pool)
        await road.start(handle, traces=writer, attempts=1)
        header = {"traceparent": f"00-{THEIRS}-00f067aa0ba902b7-01"}
        (delivery,) = await road.take_in(Incoming("c1", headers=header))
        await road.done()
        await road.close_workers()
        writer.stop()
        await writer.run()
        return delivery


def test_it_shows_the_steps_by_any_id_and_only_to_their_tenant(
    folder: Path, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = asyncio.run(_break(database))
    for identifier in (THEIRS, str(delivery)):
        trace.run(identifier, folder=folder)
        said = capsys.readouterr().out
        assert "score  failed" in said
        assert THEIRS in said
        assert "no price" in said
        assert "intake Contact.afterInsert" in said
        assert "█" in said
        assert "\x1b" not in said

    trace.run(THEIRS, folder=folder, as_json=True)
    (document,) = json.loads(capsys.readouterr().out)
    assert document["trace_id"] == THEIRS
    assert [each["name"] for each in document["spans"]][:3] == ["intake Contact.afterInsert", "queue", "dispatch"]

    trace.run(THEIRS, folder=folder, tenant="rival")
    assert "No execution is known" in capsys.readouterr().out
    with pytest.raises(typer.BadParameter, match="32 hexadecimal digits"):
        trace.run("c1", folder=folder)
