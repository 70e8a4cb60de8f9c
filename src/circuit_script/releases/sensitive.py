"""What must not be packed into a release: keys, and files from elsewhere. A release is read by all who deploy."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator
from pathlib import Path

from circuit_script.key_signs import line_of_key
from circuit_script.releases.records import files_of, is_part

NAMES = (
    "credentials.json", "client_secret*.json", "service[-_]account*.json", "application_default_credentials.json",
    "secrets.toml", "secrets.y*ml", "secrets.json", "token.json", "kubeconfig*.y*ml",
)  # fmt: skip


def sensitive(folder: Path, allowed: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Files of a release that hold a secret or stand elsewhere, each with why; but for the ``allowed`` ones. Never the
    secret itself."""
    root = folder.resolve()
    for path in sorted(files_of(folder)):
        name = "/".join(path.relative_to(folder).parts)
        if any(fnmatch.fnmatchcase(name, each) for each in allowed):
            continue
        stands = path.resolve()
        if not stands.is_relative_to(root):
            yield name, f"it stands outside of the app, at {stands}"
        elif not is_part(stands.relative_to(root)):
            yield name, f"it is a link to {stands.relative_to(root)}, which is no part of a release"
        elif any(fnmatch.fnmatchcase(path.name.lower(), each) for each in NAMES):
            yield name, "files of that name hold credentials"
        elif line := _line_in(path):
            yield name, f"line {line} has a key or a password"


def _line_in(path: Path) -> int:
    try:
        return line_of_key(path.read_bytes())
    except FileNotFoundError:  # an editor's file, gone by now
        return 0
