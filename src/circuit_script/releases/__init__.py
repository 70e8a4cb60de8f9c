"""Releases: what they are, where their files lie, which one is live, and how that changes."""

from circuit_script.releases.records import (
    IGNORED,
    Declared,
    Release,
    content_hash,
    has_endpoints,
    is_entered,
    is_part,
    known_as,
    live_handlers,
    make_live,
    record_release,
    requirements_of,
)

__all__ = [
    "IGNORED",
    "Declared",
    "Release",
    "content_hash",
    "has_endpoints",
    "is_entered",
    "is_part",
    "known_as",
    "live_handlers",
    "make_live",
    "record_release",
    "requirements_of",
]
