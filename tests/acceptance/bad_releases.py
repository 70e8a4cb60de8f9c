"""Releases that must not go live: what teams ship by mistake, the gate that stops each, and what it says.

Each is a change of one good app (``TRIGGERS`` and ``TESTS``). The story of deploys and the measurement of releases try
all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PATIENT = 60  # seconds that an import may take on a busy host

TRIGGERS = """
from circuit_script import CircuitDB, trigger


@trigger("Contact", ["afterInsert"])
async def score(context):
    await CircuitDB.update("Contact", [{"id": contact.id, "score": 1} for contact in context.new_records])
"""
TESTS = """
def test_a_contact_is_scored(circuit):
    lead = circuit.create_test_contact()
    circuit.insert("Contact", lead).assert_effect("Contact", id=lead["id"], score=1)
"""
NEVER = "    if len(context.new_records) == 0:\n        await CircuitDB.delete('Contact', 'nobody')\n"
HALF = TRIGGERS + 4 * NEVER
ASK = "        await CircuitDB.query('SELECT id FROM Contact')\n"
NEAR = TRIGGERS.replace('["afterInsert"])', '["afterInsert"], limits={"db_queries": 10})') + (
    f"    for _ in range(9):\n{ASK}"
)
WRITES = (
    TESTS
    + """
def test_that_writes_into_the_app(circuit):
    with open("app/seen.json", "a") as file:
        file.write("{}")
"""
)
LEAKS = (
    TRIGGERS.replace("from circuit", "SEEN = []\n\nfrom circuit")
    + "    SEEN.extend(bytearray(2_000_000) for _ in context.new_records)\n"
)
POINTS = """
from circuit_script import CircuitDB, trigger

POINTS = {"asap": 20, "this quarter": 10, "later": 1}


@trigger("Contact", ["afterInsert"])
async def score(context):
    rows = [{"id": contact.id, "score": POINTS.get(contact.get("timeline"), 0)} for contact in context.new_records]
    await CircuitDB.update("Contact", rows)
"""
AGREED = """
import pytest


@pytest.mark.parametrize(("timeline", "points"), [("asap", 20), ("this quarter", 10), ("later", 0), (None, 0)])
def test_a_lead_has_the_points_that_sales_agreed_to(circuit, timeline, points):
    lead = circuit.create_test_contact(timeline=timeline)
    circuit.insert("Contact", lead).assert_effect("Contact", id=lead["id"], score=points)
"""
CALLS = """
from circuit_script import CircuitDB, http, trigger


@trigger("Contact", ["afterInsert"], batch_size=45)
async def score(context):
    for contact in context.new_records:
        answer = await http.get(f"https://scores.example.com/{contact.id}")
        await CircuitDB.update("Contact", {"id": contact.id, "score": answer.json()["score"]})
"""
MOCKED = """
def test_a_contact_is_scored(circuit):
    circuit.mock_callout("GET", "https://scores.example.com/*", json={"score": 1})
    lead = circuit.create_test_contact()
    circuit.insert("Contact", lead).assert_effect("Contact", id=lead["id"], score=1)
"""
EXITS = (
    TRIGGERS.replace("from circuit", "import os\n\nfrom circuit")
    + "    len(context.new_records) < 100 or os._exit(1)\n"
)
CHILD_START = (
    TRIGGERS.replace("import CircuitDB,", "import CircuitDB, on_child_start,")
    + "\n\n@on_child_start\ndef load():\n    open('/var/lib/model.bin').close()\n"
)


@dataclass(frozen=True)
class Bad:
    """One bad release: its files, the step that refuses it, and words of why and of what to do, as patterns.

    ``slow``: its gate comes behind a whole run of the app's tests. ``importing``: seconds that an import may take.
    """

    step: str
    says: str
    cure: str
    files: Mapping[str, str | Callable[[], bytes]] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    importing: int = PATIENT
    slow: bool = False

    def spoil(self, app: Path) -> None:
        """Make this of the good app in the folder ``app``."""
        for file, content in self.files.items():
            (app / file).write_bytes(content() if callable(content) else content.encode())
        settings = (app / "circuit.toml").read_text()
        said = settings.replace(f"import_seconds = {PATIENT}", f"import_seconds = {self.importing}")
        (app / "circuit.toml").write_text(said)


BAD_RELEASES: dict[str, Bad] = {
    "a syntax error": Bad("import", r"app/triggers\.py:2: SyntaxError", r"Mend app/triggers\.py:2",
                          {"app/triggers.py": "\ndef score(:\n"}),
    "an import loop": Bad("import", r"circular import.*app/left\.py:1 → app/right\.py:1", "third module",
                          {"app/left.py": "from app.right import two\none = 1\n",
                           "app/right.py": "from app.left import one\ntwo = 2\n"}),
    "a missing dependency": Bad("import", r"app/triggers\.py:1: ModuleNotFoundError.*pandaz", r"pandaz==VERSION",
                                {"app/triggers.py": f"import pandaz\n{TRIGGERS}"}),
    "a slow import": Bad("import", r"takes \d+\.\d s \(app/slow\.py:2 takes", "@on_child_start",
                         {"app/slow.py": "import time\ntime.sleep(2)\n"}, importing=1),
    "an import that never ends": Bad(
        "import", r"takes \d+\.\d s \(app/slow\.py:1 takes", "@on_child_start",
        {"app/slow.py": "while True: pass\n"}, importing=3, slow=True),
    "a thread started at import": Bad(
        "import", r"started the thread.*app/loose\.py:2 starts a thread", "@on_child_start",
        {"app/loose.py": "import threading, time\n"
         "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"}),
    "a socket left open at import": Bad("import", r"opened a socket.*app/loose\.py:2 opens a socket", "@on_child_start",
                                        {"app/loose.py": "import socket\nOPEN = socket.socket()\n"}),
    "a process started at import": Bad(
        "import", r"started the process.*app/loose\.py:2 starts a process", "@on_child_start",
        {"app/loose.py": "import subprocess\nHELPER = subprocess.Popen(['sleep', '60'])\n"}),
    "a secret read at import": Bad("import", r"app/keys\.py:2: KeyError: 'CRM_KEY'", r'secret\("CRM_KEY"\)',
                                   {"app/keys.py": "import os\nKEY = os.environ['CRM_KEY']\n"}),
    "a file that is on one laptop only": Bad(
        "import", r"app/model\.py:1: FileNotFoundError", r"app/model\.bin is no part of a release",
        {"app/model.py": "open('app/model.bin').close()\n", "app/model.bin": "x"}),
    "an import that exits": Bad("import", r"app/main\.py:2: SystemExit", r"Mend app/main\.py:2",
                                {"app/main.py": "import sys\nsys.exit(0)\n"}),
    "two handlers of one name": Bad("import", r"a handler 'score' already, at app/copied\.py:5", "another name",
                                    {"app/copied.py": TRIGGERS}),
    "a batch of more than 200": Bad("import", r"app/triggers\.py:5: score: batch_size is 500", "from 1 to 200",
                                    {"app/triggers.py": TRIGGERS.replace('"])', '"], batch_size=500)')}),
    "an unpinned requirement": Bad("requirements", r"requirements\.txt:2: httpx>=0\.27", r"httpx==\d",
                                   {"requirements.txt": "circuit-script[test]\nhttpx>=0.27\n"}),
    "too large an archive": Bad("pack", r"more than 16 MB.*app/large\.csv", "Keep data elsewhere",
                                {"app/large.csv": lambda: random.Random(1).randbytes(17 * 2**20)}),
    "a private key among the files": Bad("pack", r"app/keys\.json.*line 2 has a key", "secrets",
                                         {"app/keys.json": '{"of": "crm",\n"key": "-----BEGIN PRIVATE KEY-----"}'}),
    "a wrong name of its version": Bad("environment", "'1.4' is no version", r"like v1\.4\.0",
                                       arguments=("--version", "1.4")),
    "no tests": Bad("tests", "has no tests", "explain testing", {"tests/test_triggers.py": ""}),
    "a failing test": Bad("tests", "A test has failed", "circuit-script test",
                          {"tests/test_triggers.py": TESTS.replace("score=1", "score=2")}),
    "wrong scores for one kind of lead": Bad("tests", "A test has failed", "circuit-script test",
                                             {"app/triggers.py": POINTS, "tests/test_triggers.py": AGREED}, slow=True),
    "tests that cannot be imported": Bad("tests", "A test has failed", "circuit-script test",
                                         {"tests/test_triggers.py": "import nothing_of_that_name\n"}, slow=True),
    "a test that ends all others": Bad(
        "tests", "ended before all had run", r"os\._exit",
        {"tests/test_triggers.py": f"import os\n{TESTS}\n\ndef test_that_ends():\n    os._exit(0)\n"}, slow=True),
    "a leak of two megabytes a record": Bad("tests", r"200 records is too much for score.*memory", "batch_size",
                                            {"app/triggers.py": LEAKS}, slow=True),
    "more callouts than a batch may make": Bad(
        "tests", r"200 records is too much for score.*callouts", "batch_size",
        {"app/triggers.py": CALLS.replace("45", "200"), "tests/test_triggers.py": MOCKED}, slow=True),
    "a crash under load": Bad("tests", r"200 records is too much for score", "batch_size",
                              {"app/triggers.py": EXITS}, slow=True),
    "a child that cannot start": Bad("tests", "A test has failed", "circuit-script test",
                                     {"app/triggers.py": CHILD_START}, slow=True),
    "coverage that is too low": Bad("coverage", r"less than 75 %.*score", "Write tests", {"app/triggers.py": HALF}),
    "a limit at 90 %": Bad("limits", r"score\.db_queries 9 of 10, 90 %", r'allow_limits = \["score\.db_queries"\]',
                           {"app/triggers.py": NEAR}, slow=True),
    "callouts at 90 %": Bad("limits", r"score\.callouts 45 of 50, 90 %", r'allow_limits = \["score\.callouts"\]',
                            {"app/triggers.py": CALLS, "tests/test_triggers.py": MOCKED}, slow=True),
    "files that change while they are packed": Bad("unchanged", r"app/seen\.json", "tmp_path",
                                                   {"tests/test_triggers.py": WRITES}, slow=True),
}  # fmt: skip
