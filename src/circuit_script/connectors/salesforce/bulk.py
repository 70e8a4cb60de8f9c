"""Writes by Bulk API 2.0: one job for thousands of records, as CSV.

A job is made, its rows are uploaded, it is closed, and Salesforce works it off; results come as two more files, of what
was done and of what was not, in any order. They are found again by the record's id or external id, else by the whole
row. CSV after RFC 4180 with LF; an empty cell changes nothing, ``#N/A`` is null.
"""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from circuit_script.connectors.api import Api, Failed
from circuit_script.connectors.connector import Delivered, Delivery, Later, Refused, SlowDown, Unknown
from circuit_script.connectors.salesforce.faults import verdict
from circuit_script.connectors.salesforce.names import Names, is_id, long_id
from circuit_script.connectors.salesforce.writes import Collections, Item, Verb

NULL = "#N/A"
MOST_BYTES = 8 * 1024 * 1024  # of one upload; results repeat it
FIRST_POLL, LONGEST_POLL = 0.5, 10.0  # seconds
UPLOADING = 120.0
ENDED = frozenset({"JobComplete", "Failed", "Aborted"})
MAX_CELL = csv.field_size_limit()  # of results; Salesforce has no longer fields

Rows = list[dict[str, str]]


@dataclass(slots=True)
class _Sheet:
    """The rows of one job, and where the results of each belong."""

    verb: Verb
    columns: list[str]
    key: str | None  # the column by which a result is found
    items: Sequence[Item]
    rows: Rows
    waiting: dict[tuple[str, ...], deque[int]] = field(default_factory=lambda: defaultdict(deque))

    def __post_init__(self) -> None:
        for place, row in enumerate(self.rows):
            self.waiting[self._key(row)].append(place)

    def _key(self, row: Mapping[str, str]) -> tuple[str, ...]:
        if self.key is None:
            return tuple(row.get(each) or "" for each in self.columns)
        found = row.get(self.key) or ""
        return (long_id(found[:15]) if is_id(found) else found.casefold(),)

    def place(self, row: Mapping[str, str]) -> int | None:
        """Of which item a row of the results is; None for none of them."""
        waiting = self.waiting.get(self._key(row))
        return waiting.popleft() if waiting else None

    def text(self) -> bytes:
        lines = [",".join(self.columns)]
        lines += [",".join(_quoted(row[each]) for each in self.columns) for row in self.rows]
        return "".join(f"{line}\n" for line in lines).encode()


class Bulk:
    """Bulk 2.0 jobs of one connector. What cannot be said in CSV, and what a job that failed has left over, goes by
    ``collections``."""

    def __init__(self, api: Api, version: str, names: Names, collections: Collections, *, seconds: float) -> None:
        self._api = api
        self._base = f"/services/data/v{version}/jobs/ingest"
        self._names = names
        self._collections = collections
        self._seconds = seconds

    async def write(self, verb: Verb, sobject: str, external: str | None, items: Sequence[Item]) -> list[Delivery]:
        """What became of each."""
        found: dict[int, Delivery] = {}
        fitting = [place for place, each in enumerate(items) if _fits(each)]
        by: list[int] = [place for place in range(len(items)) if place not in set(fitting)]
        end = time.monotonic() + self._seconds
        for part in _parts(fitting, items):
            sheet = _sheet(verb, external, self._names, [items[place] for place in part])
            results, left = await self._job(sheet, sobject, external, end)
            found |= {part[place]: result for place, result in results.items()}
            by += [part[place] for place in left]
        if by:
            rest = await self._collections.write(verb, sobject, external, [items[place] for place in by])
            found |= dict(zip(by, rest, strict=True))
        return [found[place] for place in range(len(items))]

    async def _job(
        self, sheet: _Sheet, sobject: str, external: str | None, end: float
    ) -> tuple[dict[int, Delivery], list[int]]:
        """Results by place, and the places of what the job would not touch for a reason that lies in its data."""
        tenant = sheet.items[0].effect.tenant
        everything = range(len(sheet.items))
        try:
            job = await self._make(tenant, sheet, sobject, external)
        except Failed as failed:  # nothing is worked off before it is closed
            if isinstance(failed.delivery, Refused):
                return {}, list(everything)
            return dict.fromkeys(everything, _undone(failed.delivery)), []
        state, message = await self._finish(tenant, job, end)
        if state not in ENDED:
            return dict.fromkeys(everything, Unknown(f"the job {job} did not end: {message}")), []
        try:
            done = await self._rows(tenant, job, "successfulResults")
            failed_rows = await self._rows(tenant, job, "failedResults")
            left = await self._rows(tenant, job, "unprocessedrecords") if state != "JobComplete" else []
        except Failed as failed:
            reason = f"the results of the job {job} cannot be read: {failed.delivery.reason}"
            return dict.fromkeys(everything, Unknown(reason)), []
        return self._sorted(sheet, state, message, job, (done, failed_rows, left))

    def _sorted(
        self, sheet: _Sheet, state: str, message: str, job: str, rows: tuple[Rows, Rows, Rows]
    ) -> tuple[dict[int, Delivery], list[int]]:
        done, failed, left = rows
        results: dict[int, Delivery] = {}
        again: list[int] = []
        for row in done:
            if (place := sheet.place(row)) is not None:
                made = row.get("sf__Id") or ""
                results[place] = Delivered(long_id(made[:15]) if is_id(made) else None)
        for row in failed:
            if (place := sheet.place(row)) is not None:
                effect = sheet.items[place].effect
                results[place] = verdict(*_error(row.get("sf__Error") or ""), effect, self._names)
        for row in left:
            if (place := sheet.place(row)) is None:
                continue
            if state == "Failed":
                again.append(place)
            else:
                results[place] = Later(f"the job {job} was aborted before it came to this record. {message}".strip())
        for place in range(len(sheet.items)):
            if place not in results and place not in again:
                results[place] = Unknown(f"the results of the job {job} do not name it")
        return results, again

    async def _make(self, tenant: str, sheet: _Sheet, sobject: str, external: str | None) -> str:
        """Make a job, and upload its rows; its id. Raises Failed."""
        asked = {"object": sobject, "operation": sheet.verb, "contentType": "CSV", "lineEnding": "LF"}
        if sheet.verb == "upsert" and external is not None:
            asked["externalIdFieldName"] = external
        answer = await self._api.send(tenant, "POST", self._base, json=asked)
        job = _said(answer, "id")
        if not is_id(job) and not job.isalnum():
            raise Failed(Later("Salesforce made a job and did not say which"))
        try:
            await self._api.send(
                tenant,
                "PUT",
                f"{self._base}/{job}/batches",
                content=sheet.text(),
                headers={"content-type": "text/csv; charset=UTF-8"},
                timeout=UPLOADING,
            )
        except Failed:
            await self._quietly(tenant, job, "Aborted")
            raise
        return job

    async def _finish(self, tenant: str, job: str, end: float) -> tuple[str, str]:
        """Close a job and wait for its end; its last state, and what it says of it. One that takes too long is aborted:
        what it has done is known then, too."""
        state, message = "Open", ""
        wait, closings, aborting = FIRST_POLL, 0, False
        while True:
            try:
                if state == "Open" and closings < 3:
                    closings += 1
                    await self._set(tenant, job, "UploadComplete")
                answer = await self._api.send(tenant, "GET", f"{self._base}/{job}")
                state, message = _said(answer, "state"), _said(answer, "errorMessage")[:200]
            except Failed as failed:
                message = failed.delivery.reason
            if state in ENDED:
                return state, message
            if time.monotonic() >= end or (state == "Open" and closings >= 3):
                if aborting:
                    return state, message
                aborting = True
                await self._quietly(tenant, job, "Aborted")
                continue
            await asyncio.sleep(max(0.0, min(wait, end - time.monotonic())))
            wait = min(LONGEST_POLL, wait * 2)

    async def _set(self, tenant: str, job: str, state: str) -> None:
        await self._api.send(tenant, "PATCH", f"{self._base}/{job}", json={"state": state})

    async def _quietly(self, tenant: str, job: str, state: str) -> None:
        try:
            await self._set(tenant, job, state)
        except Failed:
            return

    async def _rows(self, tenant: str, job: str, which: str) -> Rows:
        answer = await self._api.send(
            tenant, "GET", f"{self._base}/{job}/{which}", headers={"accept": "text/csv"}, timeout=UPLOADING
        )
        return read(answer.content)


def read(content: bytes) -> Rows:
    """The rows of a CSV by their columns; of what is no CSV, those before that."""
    rows: Rows = []
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"), newline=""))
    try:
        columns = next(reader, [])
        rows += [dict(zip(columns, each, strict=False)) for each in reader if each]
    except csv.Error:
        return rows
    return rows


def _quoted(text: str) -> str:
    """A cell; the csv module leaves a bare CR outside quotes, where it ends the row."""
    return '"' + text.replace('"', '""') + '"' if any(each in text for each in ',"\r\n') else text


def cell(value: Any) -> str:
    """A value in a row that changes it."""
    if value is None or value == "":
        return NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _fits(item: Item) -> bool:
    """Whether CSV can say it: text that looks like null cannot be told from it."""
    return all(value != NULL and len(str(value)) < MAX_CELL for value in item.fields.values()) and item.key != NULL


def _parts(places: Sequence[int], items: Sequence[Item]) -> Iterable[list[int]]:
    """Places whose rows go into one upload."""
    part: list[int] = []
    size = 0
    for place in places:
        width = sum(len(str(value).encode("utf-8", "replace")) + 3 for value in items[place].fields.values()) + 300
        if part and size + width > MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(place)
        size += width
    if part:
        yield part


def _sheet(verb: Verb, external: str | None, names: Names, items: Sequence[Item]) -> _Sheet:
    own = names.external(items[0].effect.target)
    key = {"insert": None, "upsert": external}.get(verb, "Id")
    columns = sorted({name for each in items for name in each.fields} | ({key} if key else set()))
    rows = []
    for each in items:
        row = {name: cell(each.fields[name]) if name in each.fields else "" for name in columns}
        if key is not None:
            row[key] = str(each.key)
        rows.append(row)
    if verb == "insert" and own is not None and all(row.get(own) for row in rows):
        key = own
    return _Sheet(verb, columns, key, items, rows)


def _undone(delivery: Refused | Later | SlowDown | Unknown) -> Delivery:
    """Of a job that was never closed nothing was done, whatever was heard of it."""
    return Later(delivery.reason) if isinstance(delivery, Unknown) else delivery


def _error(text: str) -> tuple[str, str, list[str]]:
    """Code, message and fields of ``sf__Error``: ``STRING_TOO_LONG:data value too large:Email --``."""
    code, _, rest = text.partition(":")
    message, _, fields = rest.rpartition(":")
    listed = fields.removesuffix("--").replace(",", " ").split()
    named = bool(message) and all(each.replace("_", "").isalnum() for each in listed)
    return code.strip(), message if named else rest.removesuffix("--").strip(), listed if named else []


def _said(answer: Any, name: str) -> str:
    try:
        said = answer.json()
    except (ValueError, RecursionError):
        return ""
    return str(said.get(name) or "") if isinstance(said, dict) else ""
