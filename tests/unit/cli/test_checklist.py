"""How the checklist calls a release, and what it keeps of how far it has come."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from circuit_script.cli.checklist import Kept, Progress, load, save
from circuit_script.cli.checklist_steps import STEPS, Name, Plan, State, next_version, plan_of, tag_here
from circuit_script.config import Settings, load_settings

TAG = next(step for step in STEPS if step.name is Name.tag)
ROLLBACK = next(step for step in STEPS if step.name is Name.rollback)
TWO = '[env.staging]\ndatabase_env = "A_URL"\n[env.production]\ndatabase_env = "B_URL"\n'


def plan(settings: Settings, version: str | None = None) -> Plan:
    return plan_of(
        settings, version=version, staging="staging", production="production", url=None, smoke=None, minutes=10
    )


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.com")
    (tmp_path / "circuit.toml").write_text(TWO)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "--message", "as it is")


@pytest.mark.parametrize(
    ("tags", "following"),
    [
        ([], "v1.0.0"),
        (["v1.0.0"], "v1.0.1"),
        (["v1.9.9", "v1.10.0", "v1.2.30"], "v1.10.1"),
        (["v1.0", "v1.0.0-rc1", "v1.x.y", "nightly", "v2.0.0"], "v1.0.0"),
    ],
)
def test_the_next_version_follows_the_highest_of_git(repository: Path, tags: list[str], following: str) -> None:
    for tag in tags:
        git(repository, "tag", tag)
    assert next_version(str(repository)) == following


def test_a_commit_that_has_a_tag_is_called_so(repository: Path) -> None:
    assert tag_here(str(repository)) is None
    for tag in ("v1.2.9", "v1.2.10", "other"):
        git(repository, "tag", tag)
    assert tag_here(str(repository)) == "v1.2.10"
    made = plan(load_settings(repository))
    assert made.version == "v1.2.10"
    assert TAG.run(made).detail == "v1.2.10 is the tag of this commit"
    commit(repository)
    assert tag_here(str(repository)) is None


def test_a_tag_is_of_what_is_committed(repository: Path) -> None:
    (repository / "circuit.toml").write_text(TWO + "# changed\n")
    refused = TAG.run(plan(load_settings(repository)))
    assert (refused.state, "circuit.toml is not committed" in refused.detail) == (State.failed, True)
    (repository / "circuit.toml").write_text(TWO)
    (repository / "new.py").touch()
    assert "new.py is not committed" in TAG.run(plan(load_settings(repository))).detail
    commit(repository)
    done = TAG.run(plan(load_settings(repository)))
    assert (done.state, done.version, tag_here(str(repository))) == (State.done, "v1.0.0", "v1.0.0")


def test_the_tag_of_a_commit_is_not_that_of_files_that_were_changed_since(repository: Path) -> None:
    git(repository, "tag", "v1.0.0")
    (repository / "new.py").touch()
    refused = TAG.run(plan(load_settings(repository)))
    assert (refused.state, "new.py is not committed" in refused.detail) == (State.failed, True)


@pytest.mark.parametrize("version", ["1.4.0", "v2.0.0", "v1.4", "v1.04.0", "--force", "v1.4.0; rm -rf"])
def test_what_is_no_version_is_no_tag(repository: Path, version: str) -> None:
    refused = TAG.run(plan(load_settings(repository), version))
    assert (refused.state, "is no version" in refused.detail) == (State.failed, True)
    assert tag_here(str(repository)) is None


def test_a_tag_that_another_commit_has_is_told(repository: Path) -> None:
    git(repository, "tag", "v1.0.0")
    commit(repository)
    refused = TAG.run(plan(load_settings(repository), "v1.0.0"))
    assert (refused.state, "already exists" in refused.detail) == (State.failed, True)


def test_without_git_the_release_is_called_by_deploy(tmp_path: Path) -> None:
    (tmp_path / "circuit.toml").touch()
    made = plan(load_settings(tmp_path))
    assert (made.staging, made.production, made.version) == (None, None, None), "circuit.toml has no environments"
    assert TAG.run(made).state is State.skipped
    commands = {step.name: step.command(made) for step in STEPS}
    assert commands[Name.production] == "circuit-script deploy --detach --yes"
    skipped = {
        step.name for step in STEPS if step.name in (Name.staging, Name.smoke) and step.run(made).state == "skipped"
    }
    assert skipped == {Name.staging, Name.smoke}


def test_what_a_watch_has_found_well_is_not_rolled_back(repository: Path) -> None:
    made = Plan(load_settings(repository), "v1.0.0", None, None, None, None, 0, watched=State.done)
    assert (ROLLBACK.run(made).state, ROLLBACK.acts) == (State.skipped, True)


def test_how_far_it_came_is_kept_for_the_same_files_only(tmp_path: Path) -> None:
    file = tmp_path / ".circuit" / "checklist-production.json"
    assert load(file, "abc") == Progress("abc")
    kept = Progress("abc", "v1.0.0", {Name.test: Kept(State.done, "9 handlers ran", datetime(2026, 5, 1, tzinfo=UTC))})
    save(file, kept)
    assert load(file, "abc") == kept
    assert load(file, "other") == Progress("other")
    assert load(file, "abc", "v1.0.0") == kept
    assert load(file, "abc", "v1.1.0") == Progress("abc"), "what was done was done to another release"
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    for broken in (b"", b"{", b'{"digest": 1}', b'{"digest": "abc", "steps": {"fly": {}}}', b"\xff"):
        file.write_bytes(broken)
        assert load(file, "abc") == Progress("abc")
