"""Which requirements may be part of a release: those that are the same tomorrow."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from circuit_script.cli.deploy_requirements import differing, pinned
from circuit_script.errors import DeployRefused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_an_app_without_any_needs_the_platform_alone(folder: Path) -> None:
    assert pinned(folder) == ""
    (folder / "requirements.txt").write_text("# ours\ncircuit-script[test]\nCircuit_Script>=0.1,<1\n\n")
    assert pinned(folder) == ""


def test_pinned_ones_are_kept_line_by_line(folder: Path) -> None:
    (folder / "requirements.txt").write_text(
        "httpx[http2]==0.27.0 ; python_version < '4'  # for now\n"
        "tomli==2.0.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "circuit-script-extras==1.0\n"
    )
    assert pinned(folder).splitlines() == [
        "httpx[http2]==0.27.0 ; python_version < '4'",
        "tomli==2.0.1 --hash=sha256:aa --hash=sha256:bb",
        "circuit-script-extras==1.0",
    ]


def test_a_mark_of_utf_8_is_no_part_of_a_name(folder: Path) -> None:
    (folder / "requirements.txt").write_text("httpx==0.27.0\n", "utf-8-sig")
    assert pinned(folder) == "httpx==0.27.0\n"


def test_constraints_may_pin_them(folder: Path) -> None:
    (folder / "constraints.txt").write_text("Tom_Li==2.0.1\nidle==1\n")
    (folder / "requirements.txt").write_text("tom-li[x]>=2 ; python_version > '3'\n")
    assert pinned(folder) == "tom-li[x]==2.0.1; python_version > '3'\n"


@pytest.mark.parametrize(
    "line",
    [
        "httpx", "httpx>=0.27", "httpx~=0.27", "httpx==0.*", "httpx==0.27,<1", "-e .", "-r other.txt", "./wheel.whl",
        "httpx @ https://ada:hunter2@example.com/httpx.whl", "--" "index-url https://ada:hunter2@example.com/simple",
    ],
)  # fmt: skip
def test_what_would_be_another_thing_tomorrow_is_refused_with_its_line(folder: Path, line: str) -> None:
    (folder / "requirements.txt").write_text(f"# one\n{line}\n")
    with pytest.raises(DeployRefused, match=r"requirements\.txt:2: ") as caught:
        pinned(folder)
    assert "hunter2" not in str(caught.value)
    assert "uv pip compile" in caught.value.cure
    if line.startswith("httpx") and "://" not in line:
        assert f"httpx=={version('httpx')}" in caught.value.cure


def test_what_is_installed_here_in_another_version_is_told() -> None:
    assert differing(f"httpx=={version('httpx')}\n") == []
    assert differing("httpx==0.1\nnobody-has-this==1\ntomli==1 ; python_version < '3'\n") == [
        f"httpx {version('httpx')}",
        "nobody-has-this none",
    ]
