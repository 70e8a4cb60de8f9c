"""What `init --target` writes: read by those who would obey it, and held against what the platform does."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from circuit_script.cli.init import add, environments, read_template, scaffold
from circuit_script.cli.init.targets import CI, FILES, Target, content, pins, slug
from circuit_script.config import Settings
from circuit_script.errors import ScaffoldRefused

HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)
KINDS = (*Target, *CI)
REQUIREMENTS = "circuit-script[test]\n"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new app with everything."""
    folder = scaffold(tmp_path_factory.mktemp("apps") / "shop")
    placed = add(folder, KINDS, force=False)
    assert {each.state for each in placed} == {"written"}
    return folder


def checked(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with continued lines joined."""
    lines = [line for line in dockerfile.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined if line.strip())]


def unit(path: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's documentation does it
    parsed.read_string(path.read_text("utf-8"))
    return parsed


def test_every_file_carries_the_apps_name_and_none_another(app: Path) -> None:
    for kind in KINDS:
        for file, text in content(kind, "shop", REQUIREMENTS).items():
            assert (app / file).read_text("utf-8") == text
            assert "acme" not in file + text
    assert (app / "systemd" / "shop-backup.timer").is_file()
    assert yaml.safe_load((app / "compose.yaml").read_text())["name"] == "shop"


def test_every_template_is_used() -> None:
    folder = Path(sys.modules["circuit_script.cli.init"].__path__[0]) / "targets"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {template for files in FILES.values() for template in files.values() if template}


@pytest.mark.parametrize(("name", "made"), [("My App", "my-app"), ("a_b.c", "a-b-c"), ("shop", "shop"), ("---", "app")])
def test_a_name_becomes_one_that_platforms_accept(name: str, made: str) -> None:
    assert slug(name) == made


def test_an_app_that_is_there_gets_what_it_lacks_and_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    states = {each.file: each.state for each in add(tmp_path, [Target.docker], force=False)}
    assert states.pop("Dockerfile") == "kept"
    assert set(states.values()) == {"written"}
    assert "requirements.txt" in states, "the Dockerfile copies it"
    assert (tmp_path / "Dockerfile").read_text() == "FROM scratch\n"

    (tmp_path / "requirements.txt").write_text("circuit-script\n")
    states = {each.file: each.state for each in add(tmp_path, [Target.docker], force=True)}
    assert states.pop("Dockerfile") == "replaced"
    assert states.pop("constraints.txt") == "replaced", "it needs less now"
    assert set(states.values()) == {"as it was"}
    assert (tmp_path / "requirements.txt").read_text() == "circuit-script\n", "the author's own, also with --force"


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").mkdir()
    with pytest.raises(ScaffoldRefused, match="Dockerfile: Is a directory"):
        add(tmp_path, [Target.docker], force=False)


def test_pins_are_of_all_that_is_needed_and_of_no_more() -> None:
    found = pins(
        "# a comment\n-r other.txt\ncircuit-script[test]>=0.1 ; python_version > '3'\nnot-installed-anywhere\n"
    )
    listed = dict(line.split("==") for line in found.splitlines()[1:])
    assert listed["psycopg-binary"] == version("psycopg-binary"), "an extra of what is needed"
    assert listed["pytest"] == version("pytest"), "an extra of the app's"
    assert not {"mypy", "ruff", "moto", "not-installed-anywhere"} & listed.keys()
    assert "psycopg" in pins("circuit-script\n")
    assert "pytest" not in pins("circuit-script\n")


# Docker ------------------------------------------------------------------------------------------


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed; the test below reads the Dockerfile")
def test_hadolint_has_nothing_to_say(app: Path) -> None:
    ran = checked(str(HADOLINT), "--failure-threshold", "style", "Dockerfile", folder=app)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_image_is_small_pinned_watched_and_not_roots(app: Path) -> None:
    found = instructions(app / "Dockerfile")
    images = [rest for word, rest in found if word == "FROM"]
    assert len(images) == 2
    assert re.match(r"python:3\.\d+-[a-z]+ AS build$", images[0]), "whole, so with a compiler"
    assert re.match(r"python:3\.\d+-slim-[a-z]+$", images[1])
    final = found[max(n for n, (word, _) in enumerate(found) if word == "FROM") :]
    assert not any(word == "RUN" and "pip" in rest for word, rest in final), "what builds stays in the first image"
    words = dict(final)
    assert words["USER"].isdigit()
    assert words["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(words["CMD"]) == ["circuit-script", "serve"]
    assert "/healthz" in words["HEALTHCHECK"]
    assert any("-c /tmp/constraints.txt" in rest for word, rest in found if word == "RUN")
    ignored = (app / ".dockerignore").read_text().splitlines()
    assert {".git", ".circuit", ".venv", "**/*.env", "**/.env*", "**/*.backup"} <= set(ignored)
    assert any("--create-home" in rest for word, rest in final if word == "RUN"), "packages of releases go there"


def test_compose_accepts_its_file(app: Path) -> None:
    ran = checked(
        sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml", folder=app
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    services = yaml.safe_load((app / "compose.yaml").read_text())["services"]
    assert services["database"]["volumes"] == ["database:/var/lib/postgresql"]
    assert services["database"]["healthcheck"]
    assert services["app"]["depends_on"]["database"]["condition"] == "service_healthy"
    for service in services.values():
        assert service["restart"] == "unless-stopped"
        assert service["mem_limit"]
        assert service["cpus"]
    assert all(port.startswith("127.0.0.1:") for port in services["app"]["ports"])


def test_a_name_of_digits_is_still_text_to_compose() -> None:
    assert yaml.safe_load(content(Target.docker, "2024", "")["compose.yaml"])["name"] == "2024"


def test_docker_compose_reads_it(app: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or checked(docker, "compose", "version", folder=app).returncode:
        pytest.skip("Docker Compose is not installed; the schema accepts the file")
    ran = subprocess.run(
        [docker, "compose", "config", "--quiet"],
        cwd=app,
        env={"POSTGRES_PASSWORD": "x"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr


# Heroku ------------------------------------------------------------------------------------------


def test_the_procfile_has_the_three_processes_of_a_dyno(app: Path) -> None:
    lines = dict(line.split(": ", 1) for line in (app / "Procfile").read_text().splitlines())
    assert list(lines) == ["release", "web", "worker"]
    assert lines["release"].endswith("circuit-script migrate")
    assert lines["web"].endswith("circuit-script serve --port $PORT")
    assert lines["worker"].endswith("circuit-script serve --role worker")
    known = {f"CIRCUIT_{part.upper()}" for part in Settings.model_fields}
    for line in lines.values():
        settings = [each.partition("=")[0] for each in shlex.split(line) if each.startswith("CIRCUIT_")]
        assert {each.partition("__")[0] for each in settings} <= known
        assert "PGSSLMODE=${PGSSLMODE:-require}" in line, "never in the open, but where DATABASE_URL says so"


def test_app_json_says_one_dyno_and_what_it_must_be_told(app: Path) -> None:
    found = json.loads((app / "app.json").read_text())
    assert found["name"] == "shop"
    assert {name: each["quantity"] for name, each in found["formation"].items()} == {"web": 1, "worker": 0}
    assert found["env"]["DATABASE_URL"] == {
        "description": found["env"]["DATABASE_URL"]["description"],
        "required": True,
    }
    assert found["buildpacks"] == [{"url": "heroku/python"}]
    assert (app / ".python-version").read_text() == "3.13\n"
    assert "circuit-script" in (app / "requirements.txt").read_text()


# systemd -----------------------------------------------------------------------------------------


def test_systemd_accepts_the_units(app: Path, tmp_path: Path) -> None:
    names = ("shop.service", "shop-backup.service", "shop-backup.timer")
    for name in names:
        unit(app / "systemd" / name)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed; the units can be read")
    for name in names:  # as they are, but for what is only on the host that they are for
        text = (app / "systemd" / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/srv/shop/.venv/bin/circuit-script", "/bin/true"))
    ran = checked("systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names), folder=tmp_path)
    assert (ran.returncode, [line for line in ran.stderr.splitlines() if "shop" in line]) == (0, []), ran.stderr


def test_the_units_start_again_are_fenced_in_and_agree_with_each_other(app: Path) -> None:
    folder = app / "systemd"
    service, backup = unit(folder / "shop.service")["Service"], unit(folder / "shop-backup.service")["Service"]
    assert service["ExecStart"] == "/srv/shop/.venv/bin/circuit-script serve"
    assert (service["Type"], service["Restart"], service["KillMode"]) == ("notify", "always", "mixed")
    assert backup["ExecStart"].startswith("/srv/shop/.venv/bin/circuit-script backup ")
    for each in (service, backup):
        assert each["EnvironmentFile"] == "-/etc/shop.env"
        assert each["User"] == "circuit"
        assert each["ProtectSystem"] == "strict"
        assert each["NoNewPrivileges"] == "yes"
        assert each["CapabilityBoundingSet"] == ""
    assert service["CacheDirectory"] == "shop", "nothing else of the disk may be written by it but .circuit"
    timer = unit(folder / "shop-backup.timer")
    assert timer["Timer"]["Persistent"] == "true"
    assert timer["Install"]["WantedBy"] == "timers.target"
    for line in (folder / "shop.env.example").read_text().splitlines():
        assert not line or re.match(r"#|[A-Z_]+=\S*$", line)


def test_the_example_of_the_environment_says_what_is_the_default_anyway(app: Path) -> None:
    lines = [line for line in (app / "systemd" / "shop.env.example").read_text().splitlines() if "=" in line]
    said = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert said == {
        "CIRCUIT_GATEWAY__HOST": Settings().gateway.host,
        "CIRCUIT_GATEWAY__PORT": str(Settings().gateway.port),
        "CIRCUIT_DASHBOARD__PORT": str(Settings().dashboard.port),
    }


# GitHub ------------------------------------------------------------------------------------------


def steps_of(job: dict[str, object]) -> Sequence[dict[str, str]]:
    steps = job["steps"]
    assert isinstance(steps, list)
    return steps


def test_the_workflow_is_short_and_does_the_seven_steps_in_their_order(app: Path) -> None:
    text = (app / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert len(text.splitlines()) <= 200
    found = yaml.safe_load(text)
    jobs = found["jobs"]
    assert list(jobs) == ["test", "staging", "production"]
    assert "needs" not in jobs["test"]
    assert jobs["staging"]["needs"] == "test"
    assert jobs["production"]["needs"] == ["test", "staging"]
    names = [step.get("name", "") for job in jobs.values() for step in steps_of(job)]
    order = ["test", "tag", "staging", "smoke", "production", "watch", "roll back"]
    assert [name for name in names if name in order] == order


def test_the_workflow_may_do_little_and_uses_actions_by_their_major_version(app: Path) -> None:
    found = yaml.safe_load((app / ".github" / "workflows" / "release.yml").read_text("utf-8"))
    assert found["permissions"] == {"contents": "read"}
    wider = {name: job["permissions"] for name, job in found["jobs"].items() if "permissions" in job}
    assert wider == {"staging": {"contents": "write"}}, "it pushes the tag"
    for name, job in found["jobs"].items():
        assert job["timeout-minutes"] <= 30
        used = [step["uses"] for step in steps_of(job) if "uses" in step]
        assert used
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", each) for each in used)
        python = next(step for step in job["steps"] if "setup-python" in step.get("uses", ""))
        assert python["with"]["cache"] == "pip"
        assert any("GITHUB_STEP_SUMMARY" in step.get("run", "") for step in steps_of(job)), f"{name} says what it cost"


def test_secrets_of_the_workflow_are_named_and_reach_only_the_steps_that_need_them(app: Path) -> None:
    text = (app / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"STAGING_DATABASE_URL", "PRODUCTION_DATABASE_URL"}
    found = yaml.safe_load(text)
    assert "DATABASE_URL" not in json.dumps(found.get("env", {}))
    for name, job in found["jobs"].items():
        theirs = f"{name.upper()}_DATABASE_URL"
        assert "DATABASE_URL" not in json.dumps(job.get("env", {}))
        for step in steps_of(job):
            assert set(re.findall(r"secrets\.(\w+)", json.dumps(step))) <= {theirs}
            assert "${{" not in step.get("run", ""), "what others have written never becomes a command"


def test_commands_of_the_workflow_are_verbs_that_there_are(app: Path) -> None:
    from circuit_script.cli.verbs import VERBS

    found = yaml.safe_load((app / ".github" / "workflows" / "release.yml").read_text("utf-8"))
    runs = "\n".join(step.get("run", "") for job in found["jobs"].values() for step in steps_of(job))
    called = set(re.findall(r"circuit-script (\w+)", runs))
    assert {"test", "deploy", "rollback", "checklist"} <= called
    assert called <= {verb.name for verb in VERBS}


@pytest.mark.parametrize("step", ["test", "staging", "production"])
def test_shell_of_the_workflow_is_what_bash_reads(app: Path, step: str) -> None:
    found = yaml.safe_load((app / ".github" / "workflows" / "release.yml").read_text("utf-8"))
    for each in steps_of(found["jobs"][step]):
        ran = subprocess.run(["bash", "-n"], input=each.get("run", ""), capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_a_tag_that_cannot_be_made_ends_the_workflow(app: Path, tmp_path: Path) -> None:
    """`checklist` fails and says its plan, as where another commit has the tag: nothing is pushed, nothing goes on."""
    found = yaml.safe_load((app / ".github" / "workflows" / "release.yml").read_text("utf-8"))
    (step,) = [each for each in steps_of(found["jobs"]["staging"]) if each.get("name") == "tag"]
    stubs = {"circuit-script": "exit 1", "jq": "cat > /dev/null; echo v1.4.0", "git": f"touch {tmp_path}/pushed"}
    for name, line in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    shell = found.get("defaults", {}).get("run", {}).get("shell")
    as_github = ["bash", "--noprofile", "--norc", "-eo", "pipefail"] if shell == "bash" else ["bash", "-e"]
    output = {"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main", "GITHUB_OUTPUT": str(tmp_path / "output")}
    environment = {**os.environ, **output, "WANTED": "v1.4.0", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run([*as_github, "-c", step["run"]], env=environment, check=False)
    assert (ran.returncode, (tmp_path / "pushed").exists(), (tmp_path / "output").exists()) == (1, False, False)


def test_the_workflow_says_what_a_release_cost(app: Path, tmp_path: Path) -> None:
    found = yaml.safe_load((app / ".github" / "workflows" / "release.yml").read_text("utf-8"))
    (step,) = [each for each in steps_of(found["jobs"]["production"]) if each.get("name") == "what it cost"]
    summary = tmp_path / "summary.md"
    began = str(int(time.time()) - 10 * 60 - 30)
    variables = {"BEGAN": began, "BEFORE": "2 3", "VERSION": "v1.4.0", "GITHUB_STEP_SUMMARY": str(summary)}
    price = found["env"]["USD_PER_MINUTE"]
    subprocess.run(
        ["bash", "-e", "-c", step["run"]], env={**os.environ, **variables, "USD_PER_MINUTE": price}, check=True
    )
    assert price == "0.006"
    assert summary.read_text("utf-8").splitlines() == [
        "production: 11 min × $0.006",
        "**v1.4.0 cost $0.096**: 16 min × $0.006",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [("", set()), ("[env.staging]\n", {"staging"}), ("env = 1\n", set()), ("[env", set()), (None, set())],
)
def test_environments_that_a_workflow_deploys_to_are_looked_for(
    tmp_path: Path, text: str | None, names: set[str]
) -> None:
    if text is not None:
        (tmp_path / "circuit.toml").write_text(text)
    assert environments(tmp_path) == names


def test_a_new_app_names_the_environments_of_the_workflow_where_only_the_mark_must_go(app: Path) -> None:
    file = app / "circuit.toml"
    assert environments(app) == set()
    lines = file.read_text("utf-8").splitlines()
    first = lines.index("# [env.staging]")
    uncovered = "\n".join(line.removeprefix("# ") for line in lines[first : first + 4])
    assert tomllib.loads(uncovered)["env"] == {
        "staging": {"database_env": "STAGING_DATABASE_URL"},
        "production": {"database_env": "PRODUCTION_DATABASE_URL"},
    }


def test_the_template_of_requirements_is_what_an_app_without_one_gets(tmp_path: Path) -> None:
    add(tmp_path, [Target.heroku], force=False)
    assert (tmp_path / "requirements.txt").read_text("utf-8") == read_template("requirements.txt")
