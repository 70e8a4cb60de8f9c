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
HELPING = """def helps(context):
    if context.new_records:
        return True
    return False
"""


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
