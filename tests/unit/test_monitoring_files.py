"""The files of deploy/monitoring: checked by promtool, and held against the metrics that there are."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from circuit_script.telemetry.metrics import FAMILIES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
BOARDS = sorted((FOLDER / "grafana").glob("*.json"))
THEIRS = {"up"}  # Prometheus's own
EXPORTED = {sample: family for family in FAMILIES.values() for sample in family.samples}
LABELS = {"instance", "job", "le"}
WORDS = {"by", "without", "and", "or", "unless", "on", "ignoring", "bool", "offset"}


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def rules():
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board_expressions():
    found = {}
    for path in BOARDS:
        board = json.loads(path.read_text())
        for panel in panels(board):
            for target in panel["targets"]:
                found[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                sums = re.sub(r"label_values\((\w+), (\w+)\)", r"sum by (\2) (\1)", variable["definition"])
                found[f"{path.name}: ${variable['name']}"] = sums
    return found


def plain(expression):
    """Without what Grafana fills in."""
    return re.sub(r"\$__(rate_interval|range)", "5m", expression).replace("$agent_type", ".*")


def promtool(*arguments, **options):
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=60, **options)


def test_promtool_finds_configuration_rules_and_their_tests_in_order():
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ):
        ran = promtool(*arguments, cwd=FOLDER)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_understands_every_expression_of_the_dashboards(tmp_path):
    expressions = [plain(each) for each in board_expressions().values()]
    made = [{"record": f"board:{number}", "expr": each} for number, each in enumerate(expressions)]
    assert len(made) > 40
    file = tmp_path / "boards.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "boards", "rules": made}]}))
    ran = promtool("check", "rules", str(file))
    assert ran.returncode == 0, ran.stdout + ran.stderr


GROUPED = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
MATCHED = re.compile(r"\{([^}]*)\}")


def used_by(expression):
    """The metrics and the labels of an expression."""
    bare = re.sub(r'"[^"]*"', '""', plain(expression))
    labels = {label.strip() for inside in GROUPED.findall(bare) for label in inside.split(",")}
    bare = GROUPED.sub(" ", bare)
    labels |= {label for inside in MATCHED.findall(bare) for label in re.findall(r"(\w+)\s*[=!]", inside)}
    bare = re.sub(r"\[[^]]*\]", " ", MATCHED.sub(" ", bare))
    return set(re.findall(r"[a-zA-Z_][\w:]*(?![\w:]|\s*\()", bare)) - WORDS, labels


def test_every_expression_uses_metrics_and_labels_that_are_exported():
    recorded = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
    written = {f"alerts.yml: {rule.get('alert') or rule['record']}": rule["expr"] for rule in rules()}
    seen = set()
    for place, expression in (written | board_expressions()).items():
        metrics, labels = used_by(expression)
        metrics = set().union(*(used_by(recorded[name])[0] if name in recorded else {name} for name in metrics))
        assert metrics, place
        assert metrics <= EXPORTED.keys() | THEIRS, f"{place}: {metrics - EXPORTED.keys()}"
        possible = LABELS.union(*(EXPORTED[name].labels for name in metrics - THEIRS))
        assert labels <= possible, f"{place}: {labels - possible}"
        seen |= {EXPORTED[name].name for name in metrics - THEIRS}
    assert set(FAMILIES) == seen, "what is exported is shown somewhere"


def test_what_an_alert_says_uses_labels_that_it_has_and_commands_that_exist():
    verbs = {path.stem.replace("_", "-") for path in (ROOT / "src" / "circuit_script" / "cli").iterdir()}
    for rule in rules():
        if "alert" not in rule:
            continue
        said = " ".join(rule["annotations"].values())
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(re.findall(r"circuit-script ([a-z]+)", said)) <= verbs, rule["alert"]
        metrics, _ = used_by(rule["expr"])
        metrics = {"agent_invocations_total" if name.startswith("circuit:") else name for name in metrics} - THEIRS
        has = LABELS.union(*(EXPORTED[name].labels for name in metrics))
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= has, rule["alert"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole_and_its_panels_do_not_lie_over_each_other(path):
    board = json.loads(path.read_text())
    assert board["uid"].startswith("circuit-")
    assert board["title"].startswith("Circuit Script: ")
    assert "id" not in board, "Grafana gives it one"
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels(board):
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", "it is nobody's own"
    assert [path.stem for path in BOARDS] == ["agent-performance", "cost-tracking", "system-health"]
