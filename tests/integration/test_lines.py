"""Lines count wherever handlers run: in forked and spawned children, fenced in or not, ended or killed."""

import pytest

from circuit_script.config import load_settings
from circuit_script.errors import IsolationUnavailable
from circuit_script.wiring import Trial, open_bench
from circuit_script.wiring.callouts import Callouts
from circuit_script.wiring.lines import Lines

APP = """from circuit_script import trigger
from helping import helps

@trigger("Contact", ["afterInsert"], limits={"cpu_time": 0.2})
def hangs(context):
    if helps(context):
        while True:
            continue
    return None

@trigger("Task", ["afterInsert"])
async def never_called(context):
    return None
"""
WRAPPED = """from functools import wraps

from circuit_script import trigger

def logged(function):
    @wraps(function)
    async def logs(context):
        return await function(context)
    return logs

@trigger("Contact", ["afterInsert"])
@logged
async def scores(context):
    if not context.new_records:
        return 0
    return 1
"""
HELPING = """def helps(context):
    if context.new_records:
        return True
    return False
"""


async def test_lines_of_a_handler_that_another_decorator_wraps_are_its_own(app_folder):
    (app_folder / "app.py").write_text(WRAPPED)
    settings = load_settings(app_folder)
    lines = Lines(settings)
    try:
        async with open_bench(settings, probes=lines.descriptor) as bench:
            found = lines.of_handlers(bench.manifest.handlers)
    finally:
        lines.close()
    assert found == {"scores": ("app.py", [14, 15, 16])}


async def test_lines_count_however_they_end(app_folder):
    """Python ends a line at a carriage return alone, too."""
    plain = 'ONE = 1\nTWO = """2"""\nif ONE:\n    THREE = 3\nelse:\n    FOUR = 4\n'
    (app_folder / "app").mkdir()
    for name, end in (("a", "\r"), ("b", "\r\n"), ("c", "\n")):
        (app_folder / "app" / f"{name}.py").write_bytes(plain.replace("\n", end).encode("utf-8-sig"))
    settings = load_settings(app_folder)
    lines = Lines(settings)
    try:
        async with open_bench(settings, probes=lines.descriptor):
            found = lines.seen()
    finally:
        lines.close()
    expected = {"counted": [1, 2, 3, 4, 6], "ran": [1, 2, 3, 4]}
    assert found == {f"app/{name}.py": expected for name in "abc"}


async def test_a_handler_in_what_is_taken_for_a_test_is_told(app_folder):
    (app_folder / "app").mkdir()
    (app_folder / "app" / "ab_test.py").write_text(WRAPPED)
    (app_folder / "app" / "plain.py").write_text(WRAPPED.replace("scores", "plain"))
    settings = load_settings(app_folder)
    lines = Lines(settings)
    try:
        async with open_bench(settings, probes=lines.descriptor) as bench:
            assert lines.unmeasured(bench.manifest.handlers) == {"scores": "app/ab_test.py"}
            assert list(lines.of_handlers(bench.manifest.handlers)) == ["plain"]
    finally:
        lines.close()


@pytest.mark.parametrize(
    ("isolation", "start"), [("standard", "fork"), ("standard", "spawn"), ("strict", "fork"), ("strict", "spawn")]
)
async def test_lines_count_in_every_child_also_in_one_that_is_killed(app_folder, database, isolation, start):
    (app_folder / "app.py").write_text(APP)
    (app_folder / "helping.py").write_text(HELPING)
    (app_folder / "tests").mkdir()
    (app_folder / "tests" / "test_app.py").write_text("def test_it(): pass\n")
    (app_folder / "broken.py").write_text("def (\n")
    (app_folder / "scripts").mkdir()
    (app_folder / "scripts" / "load.py").write_text("print('by hand')\n")
    settings = load_settings(app_folder, worker={"isolation": isolation, "start": start}, test={"omit": ["scripts/*"]})
    lines = Lines(settings)
    try:
        async with open_bench(settings, probes=lines.descriptor) as bench:
            async with Trial(settings, database, bench=bench, callouts=Callouts("no")) as trial:
                result = await trial.run("hangs", {"id": "c1"})
            assert result.status == "breached", result
            found, functions = lines.seen(), lines.of_handlers(bench.manifest.handlers)
    except IsolationUnavailable as error:
        pytest.skip(str(error))
    finally:
        lines.close()
    assert found == {
        "app.py": {"counted": [1, 2, 5, 6, 7, 8, 9, 12, 13], "ran": [1, 2, 5, 6, 7, 8, 12]},
        "helping.py": {"counted": [1, 2, 3, 4], "ran": [1, 2, 3]},
    }
    assert functions == {"hangs": ("app.py", [6, 7, 8, 9]), "never_called": ("app.py", [13])}
