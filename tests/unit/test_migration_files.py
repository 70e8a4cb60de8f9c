"""Migrations that the code of the release before can live with: they add."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from circuit_script.db.ahead import Migration
from circuit_script.db.migrate import read_migrations

BEFORE = "0025"  # until here no release was out: nobody ran older code
FUNCTION = re.compile(r"AS \$(\w*)\$.*?\$\1\$", re.DOTALL | re.IGNORECASE)
REMOVES = {
    "drops what older code may use": r"\bDROP\s+(TABLE|COLUMN|FUNCTION|PROCEDURE|VIEW|TYPE|SCHEMA|SEQUENCE|ROLE)\b",
    "drops a column": r"\bALTER\s+TABLE\b[^;]*\bDROP\s+(?!CONSTRAINT|DEFAULT|NOT\s+NULL|COLUMN|EXPRESSION|IDENTITY)\w+",
    "renames": r"\bRENAME\b",
    "moves to another schema": r"\bSET\s+SCHEMA\b",
    "changes a column's type": r"\bALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE\b",
    "asks older code for a value": r"\bSET\s+NOT\s+NULL\b",
    "takes a right away": r"\bREVOKE\b",
    "empties a table": r"\bTRUNCATE\b",
}
ADDED = re.compile(r"\bADD\s+COLUMN\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)((?:\([^()]*\)|[^,;()])*)", re.IGNORECASE)
LOST = re.compile(r"\bDROP\s+(?:CONSTRAINT|INDEX)\s+(?:IF\s+EXISTS\s+)?(?:circuit\.)?(\w+)", re.IGNORECASE)


def faults(text: str) -> list[str]:
    """What an older version could not live with. Bodies of functions are left out: they run when they are called."""
    text = FUNCTION.sub("", re.sub(r"--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL))
    found = [why for why, pattern in REMOVES.items() if re.search(pattern, text, re.IGNORECASE)]
    for name, rest in ADDED.findall(text):
        must = re.search(r"\bNOT\s+NULL\b", rest, re.IGNORECASE)
        if must and not re.search(r"\b(DEFAULT|GENERATED)\b", rest, re.IGNORECASE):
            found.append(f"column {name} asks older code for a value")
    for name in LOST.findall(text):
        if len(re.findall(rf"\b{name}\b", text)) < 2:
            found.append(f"{name} is gone, on which an ON CONFLICT may rest")
    return found


def later() -> list[Migration]:
    return [each for each in read_migrations() if each.name[:4] > BEFORE]


def test_migrations_before_new_code_only_add() -> None:
    wrong = {
        each.name: found
        for each in later()
        if each.name.endswith(".pre") and not each.needs and (found := faults(each.sql))
    }
    assert wrong == {}, "move it to a .post.sql of the next release, or say `-- needs:`; see CONTRIBUTING"


def test_what_a_migration_needs_is_one_before_it() -> None:
    names = [each.name for each in read_migrations()]
    for number, each in enumerate(read_migrations()):
        if each.name.endswith(".post"):
            assert re.search(r"^-- needs: ", each.sql, re.MULTILINE), f"{each.name} must say who can live with it"
        assert not each.needs or each.needs in names[: number + 1], f"{each.name} needs {each.needs}, which is none"


def test_releases_of_migrations_rise_to_this_version() -> None:
    def parts(release: str) -> tuple[int, ...]:
        assert re.fullmatch(r"\d+\.\d+", release), f"{release!r} is not like 0.2"
        return tuple(map(int, release.split(".")))

    releases = [parts(each.release) for each in read_migrations()]
    assert releases == sorted(releases)
    own = tuple(map(int, version("circuit-script").split(".")[:2]))
    assert releases[-1] <= own, "a migration says a release that this version has not reached"


@pytest.mark.parametrize(
    "text",
    [
        "DROP TABLE circuit.moves;",
        "DROP FUNCTION circuit.take_in(text);",
        "ALTER TABLE circuit.moves DROP COLUMN reason;",
        "ALTER TABLE circuit.moves DROP reason;",
        "ALTER TABLE circuit.moves\n    RENAME COLUMN reason TO why;",
        "ALTER TABLE circuit.moves ALTER reason TYPE jsonb USING reason::jsonb;",
        "ALTER TABLE circuit.moves ALTER COLUMN reason SET NOT NULL;",
        "ALTER TABLE circuit.moves ADD COLUMN why text NOT NULL;",
        "ALTER TABLE circuit.moves ADD COLUMN n numeric(10, 2) NOT NULL, ADD COLUMN m int DEFAULT 1;",
        "DROP INDEX circuit.moves_watched;",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE circuit.moves DROP COLUMN reason'; END $$;",
        "REVOKE SELECT ON circuit.releases FROM circuit_tenant;",
    ],
)
def test_what_older_code_cannot_live_with_is_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE circuit.shadows (id bigint NOT NULL);",
        "ALTER TABLE circuit.moves ADD COLUMN why text NOT NULL DEFAULT '', ADD COLUMN m int;",
        "ALTER TABLE circuit.moves ALTER COLUMN why DROP NOT NULL, ALTER COLUMN m SET DEFAULT 1;",
        "CREATE FUNCTION circuit.f() RETURNS void AS $$ BEGIN DROP TABLE pg_temp.t; END $$ LANGUAGE plpgsql;",
        "ALTER TABLE circuit.e DROP CONSTRAINT e_check, ADD CONSTRAINT e_check CHECK (true);",
        "-- DROP TABLE circuit.moves;\nSELECT 1;",
    ],
)
def test_what_adds_is_let_through(text: str) -> None:
    assert faults(text) == []
