"""Says when the app's files or its settings change on disk."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

from watchfiles import awatch

from circuit_script.config import FILE
from circuit_script.releases import IGNORED, is_entered, is_part

QUIET = 40  # milliseconds without a change, after which what was saved together is taken together
LONGEST = 400  # milliseconds, should it never be quiet


@dataclass(frozen=True, slots=True)
class Changed:
    """What may have changed since the last word."""

    app: bool
    settings: bool


async def changes(folder: Path) -> AsyncIterator[Changed]:
    """Changes in the app's folder. The first word comes once somebody looks: what was saved before counts, too, and
    what is saved from then on is told. It comes again whenever a folder came or went, which may have come with files.

    Folders that belong to no release are not looked into, as far as they stand at the top: there the database works.
    """
    folder = folder.resolve()
    while True:
        inside = _folders(folder)
        words: asyncio.Queue[Changed] = asyncio.Queue()
        watchers = [asyncio.create_task(_tell(words, folder, [folder], recursive=False))]
        if inside:
            watchers.append(asyncio.create_task(_tell(words, folder, inside, recursive=True)))
        try:
            await asyncio.sleep(0)  # they look from their first step on
            yield Changed(app=True, settings=True)
            while _folders(folder) == inside:
                yield await _next(words, watchers)
        finally:
            for each in watchers:
                each.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)


async def _next(words: asyncio.Queue[Changed], watchers: Iterable[asyncio.Task[None]]) -> Changed:
    word = asyncio.create_task(words.get())
    try:
        await asyncio.wait({word, *watchers}, return_when=asyncio.FIRST_COMPLETED)
        for each in watchers:
            if each.done():
                each.result()
        return await word
    finally:
        word.cancel()


async def _tell(words: asyncio.Queue[Changed], folder: Path, paths: list[Path], *, recursive: bool) -> None:
    async for found in awatch(
        *paths,
        watch_filter=None,
        debounce=LONGEST,
        step=QUIET,
        recursive=recursive,
        ignore_permission_denied=True,
    ):
        names = [Path(path).relative_to(folder) for _, path in found if Path(path).is_relative_to(folder)]
        settings = any(name == Path(FILE) for name in names)
        app = any(is_part(name) or _may_be_folder(folder, name) for name in names)
        if app or settings:
            words.put_nowait(Changed(app, settings))


def _may_be_folder(folder: Path, name: Path) -> bool:
    """A folder that came, went or was renamed brings or takes files of which nothing else is said."""
    return not IGNORED.intersection(name.parts) and (not name.suffix or (folder / name).is_dir())


def _folders(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(each for each in folder.iterdir() if each.is_dir() and is_entered(each))
    return []
