from __future__ import annotations

import ast
from pathlib import Path

import pytest

from circuit_script.cli.adopt import run


def test_arguments_with_quotes_make_a_module_that_python_reads(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (tmp_path / "circuit.toml").write_text("")
    script = tmp_path / "it's.py"
    script.write_text("print(1)")
    run(script, every="5m", name="report", args='--name "O\'Brien" --path "a\\\\b" \'say "hi"\' ü', folder=tmp_path)

    tree = ast.parse((app / "jobs" / "report.py").read_text("utf-8"))
    (call,) = [each for each in ast.walk(tree) if isinstance(each, ast.Call) and ast.unparse(each.func) == "run_script"]
    given = [ast.literal_eval(each) for each in call.args[1:]]
    assert given == ["--name", "O'Brien", "--path", "a\\b", 'say "hi"', "ü"]


@pytest.mark.parametrize("name", ["class", "two words"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "circuit.toml").write_text("")
    script = tmp_path / "a.py"
    script.write_text("")
    with pytest.raises(Exception, match="is no name for a job"):
        run(script, every="5m", name=name, folder=tmp_path)
