"""What must not be packed into a release: keys, and files from elsewhere. A release is read by all who deploy."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from circuit_script.releases.records import files_of

HEAD = 1 << 20  # bytes of a file that are looked at
NAMES = (
    "credentials.json", "client_secret*.json", "service[-_]account*.json", "application_default_credentials.json",
    "secrets.toml", "secrets.y*ml", "secrets.json", "token.json", "kubeconfig*.y*ml",
)  # fmt: skip
# What issuers' keys look like; each of these prefixes is the issuer's own, and means nothing else.
KEYS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    rb"|\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"
    rb"|\b(?:ghp|gho|ghs|ghr)_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}"
    rb"|\bsk-(?:ant-|proj-)[\w-]{24,}|\b[sr]k_live_[A-Za-z0-9]{16,}"
    rb"|\bxox[abprs]-[A-Za-z0-9-]{20,}|\bpit-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    rb"|\bSG\.[\w-]{22}\.[\w-]{43}|\bre_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,}"
    rb"|\bpostgres(?:ql)?://[^\s:/@\"'{}$<>]+:(?!password@|secret@|pass@|\*+@|x+@|\.+@)[^\s:/@\"'{}$<>]{8,}"
    rb"@(?!localhost|127\.0\.0\.1|\[::1\]|db\b|host\b|example\.)[\w.-]+"
)


def sensitive(folder: Path, allowed: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Files of a release that hold a secret or stand elsewhere, each with why; but for the ``allowed`` ones. Never the
    secret itself."""
    root = folder.resolve()
    for path in sorted(files_of(folder)):
        name = "/".join(path.relative_to(folder).parts)
        if any(fnmatch.fnmatchcase(name, each) for each in allowed):
            continue
        if not path.resolve().is_relative_to(root):
            yield name, f"it stands outside of the app, at {os.path.realpath(path)}"
        elif any(fnmatch.fnmatchcase(path.name.lower(), each) for each in NAMES):
            yield name, "files of that name hold credentials"
        elif line := _line_of_key(path):
            yield name, f"line {line} has a key or a password"


def _line_of_key(path: Path) -> int:
    try:
        with path.open("rb") as file:
            data = file.read(HEAD)
    except FileNotFoundError:
        return 0
    found = KEYS.search(data)
    return 0 if found is None else data.count(b"\n", 0, found.start()) + 1
