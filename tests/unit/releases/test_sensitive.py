"""What is not packed into a release: keys and passwords, what stands elsewhere, and what tools leave in a folder."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from circuit_script.cli.deploy_import import pack_files
from circuit_script.errors import DeployRefused
from circuit_script.releases import content_hash
from circuit_script.releases.records import files_of
from circuit_script.releases.sensitive import sensitive

EXAMPLES = Path(__file__).parents[3] / "examples"
BEGIN = "-----BEGIN "
ACCOUNT = '{"type": "service_account", "project": "ours"}'


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "ours"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "triggers.py").write_text("WORD = 'first'\n")
    return folder


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("app/credentials.json", "{}"),
        ("service-account.json", "{}"),
        ("app/keys.py", f"# ours\nKEY = '''{BEGIN}RSA PRIVATE KEY-----\nMII\n'''\n"),
        ("app/aws.toml", f"# ours\nid = '{'AKIA'}IOSFODNN7EXAMPLE'\n"),
        ("app/notes.md", f"# ours\n{'ghp'}_{'a1B2' * 9}\n"),
        ("app/model.py", f"# ours\nkey = '{'sk'}-ant-{'a1B2' * 9}'\n"),
        ("app/packed.py", f"# ours\nKEY = '{packed(f'{BEGIN}EC PRIVATE KEY-----a1B2')}'\n"),
        ("app/account.json", f"# ours\n{packed(ACCOUNT)}\n"),
        ("app/late.csv", f"# ours\n{'sk'}_live_{'a1B2' * 9}{' ' * 2**20}\n"),
        ("app/late.md", f"{' ' * 2**20}# ours\n{BEGIN}PGP PRIVATE KEY BLOCK-----\n"),
        ("app/cache.toml", f"# ours\nurl = '{'redis'}://:Tr0ub4dor3x@redis7.acme.io:6379'\n"),
        ("app/orm.py", f"# ours\nURL = '{'postgresql'}+psycopg://app:Tr0ub4dor3x@db7.acme.io/app'\n"),
        ("app/map.json", f"# ours\n{'AIza'}{'a1B2' * 8}a1B\n"),
        ("app/base.yaml", f"# ours\nurl: {'postgresql'}://app:Tr0ub4dor3x@db7.acme.io/app\n"),
    ],
)
def test_a_secret_is_refused_with_its_place_and_never_shown(app: Path, file: str, text: str) -> None:
    (app / file).write_text(text)
    with pytest.raises(DeployRefused) as caught:
        pack_files(app)
    assert file in caught.value.detail
    if "#" in text:
        assert "line 2 has a key" in caught.value.detail
    assert f'allow_files = ["{file}"]' in caught.value.cure
    for secret in ("MII", "IOSFODNN7", "a1B2", "Tr0ub4dor3x"):
        assert secret not in str(caught.value)
    assert pack_files(app, [file]).files.keys() == {"app/triggers.py", file}


@pytest.mark.parametrize(
    "text",
    [
        "url = 'postgresql://app:password@localhost/app'\n",
        "KEY = secret('crm.key')\nurl = f'postgresql://{user}:{password}@{host}/db'\n",
        "task-ant-a1B2a1B2a1B2a1B2a1B2a1B2 https://app:Tr0ub4dor3x@acme.io https://acme.io/a:b@c\n",
        "AKIA is how their keys begin; sk-... is ours\n",
        f"{BEGIN}PUBLIC KEY-----\n",
    ],
)
def test_what_only_speaks_of_secrets_is_packed(app: Path, text: str) -> None:
    (app / "app" / "notes.md").write_text(text)
    assert "app/notes.md" in pack_files(app).files


def test_a_link_to_a_file_elsewhere_is_refused_and_one_within_the_app_is_packed(app: Path) -> None:
    (app / "app" / "same.py").symlink_to(app / "app" / "triggers.py")
    assert "app/same.py" in pack_files(app).files
    (app.parent / "theirs.json").write_text("{}")
    (app / "app" / "data.json").symlink_to(app.parent / "theirs.json")
    with pytest.raises(DeployRefused, match=r"app/data\.json \(it stands outside of the app"):
        pack_files(app)


@pytest.mark.parametrize("target", [".env", ".circuit/state.json", "circuit.toml"])
def test_a_link_to_what_is_no_part_of_a_release_is_refused(app: Path, target: str) -> None:
    (app / target).parent.mkdir(exist_ok=True)
    (app / target).write_text("PASSWORD=hunter2")
    (app / "app" / "data.json").symlink_to(app / target)
    with pytest.raises(DeployRefused, match=rf"app/data\.json \(it is a link to {re.escape(target)}, which is no part"):
        pack_files(app)


def test_what_tools_keep_in_the_folder_is_no_part_of_a_release_and_a_module_called_env_is(app: Path) -> None:
    (app / "app" / "env").mkdir()
    (app / "app" / "env" / "names.py").write_text("")
    before = content_hash(app)
    for folder in (".mypy_cache/3.11", ".vscode", ".idea", ".tox/py311", ".hypothesis", "venv/lib", "env/lib"):
        (app / folder).mkdir(parents=True)
        (app / folder / "settings.json").write_text("{}")
    for environment in ("venv", "env"):
        (app / environment / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert content_hash(app) == before
    assert {each.name for each in files_of(app)} == {"triggers.py", "names.py"}


def test_no_example_is_taken_for_a_secret() -> None:
    looked = [each.parent for each in EXAMPLES.rglob("circuit.toml")]
    assert len(looked) > 3
    assert {str(folder): found for folder in looked if (found := list(sensitive(folder)))} == {}
