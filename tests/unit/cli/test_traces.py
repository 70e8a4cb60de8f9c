from __future__ import annotations

from circuit_script.cli.traces import authors_part, indented, taken_out

TRACE = """Traceback (most recent call last):
  File "/venv/circuit_script/execution/child/child.py", line 9, in _handle
    return self._loop.run(found)
           ^^^^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3.11/asyncio/runners.py", line 118, in run
    return self._loop.run_until_complete(task)
  File "/srv/acme/app/triggers.py", line 4, in score
    await CircuitDB.update("Contact", record)
  File "/venv/circuit_script/execution/authoring/database.py", line 70, in update
    raise Refused(said)
Refused: no
"""


def test_frames_above_the_authors_are_left_out_and_those_below_stay() -> None:
    assert authors_part(TRACE).splitlines() == [
        "Traceback (most recent call last):",
        '  File "/srv/acme/app/triggers.py", line 4, in score',
        '    await CircuitDB.update("Contact", record)',
        '  File "/venv/circuit_script/execution/authoring/database.py", line 70, in update',
        "    raise Refused(said)",
        "Refused: no",
    ]


def test_each_of_several_causes_is_shortened() -> None:
    both = f"{TRACE}\nDuring handling of the above exception, another exception occurred:\n\n{TRACE}"
    assert "asyncio" not in authors_part(both)
    assert authors_part(both).count("triggers.py") == 2


def test_a_traceback_without_a_frame_of_the_authors_is_whole() -> None:
    ours = 'Traceback (most recent call last):\n  File "/x/asyncio/a.py", line 1, in run\n    go()\nKeyError: 1'
    assert authors_part(ours) == ours
    assert authors_part("killed by signal 9") == "killed by signal 9"


def test_a_traceback_is_taken_out_of_the_fields_and_a_short_detail_is_not() -> None:
    assert taken_out({"records": 1, "detail": TRACE}) == ({"records": 1}, TRACE)
    assert taken_out({"detail": "one line"}) == ({"detail": "one line"}, "")
    assert indented("a\n  b\n") == "\n    a\n      b"
    assert indented("") == ""
