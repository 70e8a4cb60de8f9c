"""Copies of the whole database: made while it runs, checked before use, restored into another or an empty one."""

from circuit_script.backup.archive import Manifest, TableEntry, verify
from circuit_script.backup.dump import Progress, back_up
from circuit_script.backup.places import Place, file_name, is_remote, open_place
from circuit_script.backup.planned import Plan
from circuit_script.backup.restore import Restored, restore
from circuit_script.backup.schedule import keep_copies

__all__ = [
    "Manifest",
    "Place",
    "Plan",
    "Progress",
    "Restored",
    "TableEntry",
    "back_up",
    "file_name",
    "is_remote",
    "keep_copies",
    "open_place",
    "restore",
    "verify",
]
