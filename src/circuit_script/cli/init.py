"""``circuit-script init``: a new app that scores leads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from circuit_script.errors import StartError

NAME = "init"
EXAMPLES = "Example:  circuit-script init acme && cd acme && circuit-script serve"

TRIGGERS = '''"""What happens when something happens."""

from circuit_script import CircuitDB, CircuitTrigger, log, trigger
from circuit_script.agents import VirtualLPR


class ContactTrigger(CircuitTrigger):
    @trigger("Contact", ["afterInsert"], batch_size=200)
    async def score_new_leads(self, context):
        """Score every new lead and write the score back to the CRM."""
        scores = VirtualLPR.score(context.new_records)
        await CircuitDB.update("Contact", scores)
        log.info("scored", leads=len(scores))
'''

CONFIG = """# Settings of this app. Each can be given as an environment variable too: CIRCUIT_GATEWAY__PORT=8080.
# The database is the embedded PostgreSQL in .circuit, unless DATABASE_URL names another.

[gateway]
port = 8000

[worker]
children = 2

# The key that signs GoHighLevel's webhooks is built in. Standard Webhooks are signed with a secret per account:
# [sources.standard.secrets]
# acme = "whsec_..."

# Where effects of the webhook connector go, e.g. await send_webhook("alerts", {...}):
# [addresses.alerts]
# url = "https://example.com/hook"
"""

README = """# {name}

    circuit-script serve          # PostgreSQL, gateway, worker; status page at http://127.0.0.1:8000/

Handlers are in `app/triggers.py`, settings in `circuit.toml`.
"""


def run(
    name: Annotated[str, typer.Argument(help="The app's folder; made if it is not there.")],
) -> None:
    """Make a new app: one trigger that scores leads, and its settings."""
    folder = scaffold(Path(name))
    print(f"made {folder}\n  cd {folder}\n  circuit-script serve")


def scaffold(folder: Path, files: dict[str, str] | None = None) -> Path:
    """Write a new app's files. Raises StartError rather than touch a file that is there."""
    name = folder.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][\w .-]*", name):
        raise StartError(f"{name!r} is not a name for an app.", cure="Use letters, digits, '-' and '_'.")
    content = {
        "app/__init__.py": "",
        "app/triggers.py": TRIGGERS,
        "circuit.toml": CONFIG,
        "README.md": README.format(name=name),
        ".gitignore": ".circuit/\n__pycache__/\n",
        **(files or {}),
    }
    taken = [each for each in content if (folder / each).exists()]
    if taken:
        raise StartError(f"{folder / taken[0]} is there already.", cure="Choose another folder; nothing was changed.")
    try:
        for each, text in content.items():
            path = folder / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}.") from None
    return folder
