from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import circuit_script
from circuit_script.execution.authoring.context import reason_of
from circuit_script.execution.authoring.log import CircuitLog
from circuit_script.execution.authoring.meters import Meters
from circuit_script.execution.authoring.records import Record, Records
from circuit_script.execution.hardening import governed_environment
from circuit_script.governor import Limits

SOURCE = str(Path(circuit_script.__file__).parents[1])


ALL_BUT_HTTP = "from circuit_script import " + ", ".join(sorted(set(circuit_script.__all__) - {"http"}))


def imported_by(statement: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)"],
        env={"PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


def test_the_package_alone_imports_nothing() -> None:
    loaded = imported_by("import circuit_script")
    assert [name for name in loaded if name.startswith("circuit_script.")] == []
    assert not {"asyncio", "dataclasses", "email", "inspect", "msgspec"} & loaded


def test_every_name_is_offered_and_a_misspelt_one_is_refused() -> None:
    assert set(circuit_script.__all__) <= set(dir(circuit_script))
    with pytest.raises(AttributeError, match="no attribute 'triger'"):
        getattr(circuit_script, "triger")  # noqa: B009  # as text: mypy knows that there is none
    assert imported_by("try:\n    from circuit_script import triger\nexcept ImportError:\n    pass")


def test_who_checks_types_is_not_told_that_there_may_be_any_name() -> None:
    module = ast.parse(Path(circuit_script.__file__).read_text("utf-8"))
    assert "__getattr__" not in [each.name for each in module.body if isinstance(each, ast.FunctionDef)]


@pytest.mark.parametrize(
    "statement", [ALL_BUT_HTTP, "import circuit_script.execution.zygote.zygote"], ids=["all", "zygote"]
)
def test_the_side_of_the_author_imports_no_server_part_and_no_vendor(statement: str) -> None:
    loaded = imported_by(statement)
    assert "circuit_script.execution.authoring.handlers" in loaded
    parts = {name.split(".")[1] for name in loaded if name.startswith("circuit_script.")}
    assert parts <= {"errors", "governor", "execution", "clock", "failpoints", "schemas", "judgment"}
    assert not {"circuit_script.execution.broker.broker", "circuit_script.execution.host.pool"} & loaded
    assert not {"psycopg", "fastapi", "httpx", "pydantic", "uvloop", "structlog", "lark", "numpy", "re2"} & loaded


def test_everything_in_all_is_there() -> None:
    for name in circuit_script.__all__:
        assert getattr(circuit_script, name) is not None


async def test_outside_an_execution_requests_say_so_and_logs_go_nowhere() -> None:
    with pytest.raises(RuntimeError, match="inside a handler only"):
        await circuit_script.CircuitDB.query("Contact")
    CircuitLog.info("nobody hears this")


def test_iterating_or_picking_records_tells_which_one_is_worked_on() -> None:
    word = memoryview(bytearray(16)).cast("q")
    records = Records([{"id": "a"}, {"id": "b"}], word)
    assert [(record.id, word[0]) for record in records] == [("a", 0), ("b", 1)]
    assert word[0] == -1
    assert records[1].id == "b"
    assert word[0] == 1
    assert [record.place for record in records[:1]] == [0]


def test_a_record_is_a_dict_with_an_id() -> None:
    assert Record({"id": "1", "name": "Ada"}) == {"id": "1", "name": "Ada"}
    assert Record({"name": "Ada"}).id is None


def test_an_exception_whose_text_fails_still_has_a_reason() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert reason_of(Rude()) == "Rude (its message cannot be shown)"
    assert reason_of(ValueError()) == "ValueError"
    assert len(reason_of(ValueError("x" * 9000))) == 2000


def test_the_governed_environment_has_places_and_no_secret(tmp_path: Path) -> None:
    shown = governed_environment({"PATH": "/bin", "LC_ALL": "C", "DATABASE_URL": "x", "PYTHONPATH": "src", "KEY": "y"})
    assert shown["PATH"] == "/bin"
    assert shown["LC_ALL"] == "C"
    assert Path(shown["PYTHONPATH"].split(":")[0]).is_absolute()
    assert not {"DATABASE_URL", "KEY"} & set(shown)


def test_every_limit_is_a_property_that_editors_complete() -> None:
    for field in fields(Limits):
        assert isinstance(getattr(Meters, field.name), property), field.name
