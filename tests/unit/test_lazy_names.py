"""Packages that import each name when it is first asked for say the same to who runs them and to who checks types."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["circuit_script.telemetry", "circuit_script.wiring"])
def test_each_name_is_where_it_is_said_to_be(package: str) -> None:
    module = import_module(package)
    assert module.__file__ is not None
    said = {
        name.name: each.module
        for each in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8")))
        if isinstance(each, ast.ImportFrom) and each.module is not None and each.module.startswith(package)
        for name in each.names
    }
    assert said == {name: f"{package}.{home}" for name, home in module._HOMES.items()}
    assert sorted(said) == sorted(module.__all__)
    for name, home in said.items():
        assert getattr(module, name) is getattr(import_module(str(home)), name)
    with pytest.raises(AttributeError, match="no attribute 'misspelt'"):
        _ = module.misspelt
