"""How the names of a SOQL query become those of records here."""

from __future__ import annotations

NAMES = {
    "Id": "id",
    "CreatedDate": "dateAdded",
    "LastModifiedDate": "dateUpdated",
}


def field_of(name: str) -> str:
    """``Id`` → ``id``, ``FirstName`` → ``firstName``, ``CreatedDate`` → ``dateAdded``; custom fields (``Tier__c``) and
    names that begin with a small letter stay as they are."""
    if name.endswith("__c"):
        return name
    return NAMES.get(name) or name[:1].lower() + name[1:]
