"""Answers of real models, asked once with ``--record`` and answered from a file beside the tests from then on.

The file is ``recorded/NAME.json``: by test, what was asked and what came back. No header is in it, and nothing is kept
that looks like a key.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from circuit_script.config import Settings
from circuit_script.errors import RequestRefused, TrialRefused
from circuit_script.key_signs import line_of_key
from circuit_script.testing.uses import current_test
from circuit_script.wiring.callouts import Callout, Callouts, Mock
from circuit_script.wiring.models import open_providers_client

FOLDER = "recorded"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
PATIENCE = 120.0  # seconds for an answer
SHOWN = 40  # lines of a difference
TOLD = 300  # characters of what a provider says
REFUSED = "no recorded answer fits"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test's recordings are, and whether they are made now."""

    folder: Path
    recording: bool = False


@dataclass(slots=True)
class RecordedModels:
    """The answers of one ``test``, which is known by its file and name. ``problem`` says what is wrong with them, once
    something is."""

    file: Path
    test: str
    settings: Settings
    recording: bool
    entries: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""
    _used: set[int] = field(default_factory=set)

    @classmethod
    def opened(cls, place: Place, name: str, settings: Settings) -> RecordedModels:
        """Those of the test that runs. Raises TrialRefused where there are none and none are made."""
        if not NAME.fullmatch(name):
            raise TrialRefused(f"{name!r} is no name of a file.", cure="Use letters, digits, dots and dashes.")
        where, _, called = current_test().partition("::")
        test = f"{Path(where).name}::{called}"
        found = cls(place.folder / FOLDER / f"{name}.json", test, settings, place.recording)
        if place.recording:
            return found
        entries = found._read().get(test)
        if not entries:
            raise TrialRefused(f"{found.file.name} has no answers for {test}.", cure=f"Record them: {found.command}")
        found.entries = entries
        return found

    @property
    def command(self) -> str:
        """What records this test's answers."""
        return f"circuit-script test --record -k {self.test.partition('[')[0].rpartition('::')[2]}"

    def mock(self, callouts: Callouts) -> Mock:
        """Answer for the models of every provider; its ``calls`` are what they were asked."""
        urls = {each.url.rstrip("/"): each.key_env for each in self.settings.llm.providers.values()}
        calls: list[Callout] = []
        mocks = []
        for url, key_env in sorted(urls.items()):
            mock = callouts.answer_by("POST", f"{url}/chat/completions", self._answering(key_env), calls)
            mock.loosely = self._any
            mocks.append(mock)
        return mocks[0]

    def _answering(self, key_env: str) -> Any:
        async def answer(callout: Callout) -> httpx.Response:
            if self.recording:
                return await self._record(callout, key_env)
            return self._replay(callout)

        return answer

    def _replay(self, callout: Callout) -> httpx.Response:
        asked = callout.json()
        fitting = [place for place, each in enumerate(self.entries) if each["asked"] == asked]
        if not fitting:
            self.problem = self.problem or self._different(asked)
            raise RequestRefused(f"{REFUSED}.")
        place = next((each for each in fitting if each not in self._used), fitting[-1])
        self._used.add(place)
        return _response(self.entries[place]["answer"])

    def _any(self, callout: Callout) -> httpx.Response:
        """Where records are multiplied, another prompt gets an answer, too."""
        asked = callout.json()
        fitting = next((each for each in self.entries if each["asked"] == asked), None)
        return _response((fitting or self.entries[0])["answer"])

    async def _record(self, callout: Callout, key_env: str) -> httpx.Response:
        key = os.environ.get(key_env, "").strip() if key_env else ""
        if key_env and not key:
            self.problem = (
                f"{key_env} is not set, and a recording asks the real model.\nSet it, and again: {self.command}"
            )
            raise RequestRefused(f"{key_env} is not set.")
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        headers |= {"authorization": f"Bearer {key}"} if key else {}
        try:
            async with open_providers_client() as client:
                came = await client.post(callout.url, content=callout.body, headers=headers, timeout=PATIENCE)
        except httpx.HTTPError as error:
            self.problem = f"{callout.url} cannot be reached: {type(error).__name__}: {error}"
            raise RequestRefused(self.problem) from None
        if came.status_code != 200:
            self.problem = f"{callout.url} answered {came.status_code}: {_without(came.text, key)[:TOLD]}"
            raise RequestRefused(self.problem)
        kind = came.headers.get("content-type", "application/json").partition(";")[0]
        said = _without(came.text, key)
        answer = {"type": kind, "body": json.loads(said) if kind == "application/json" else said}
        entry = {"asked": json.loads(_without(json.dumps(callout.json()), key)), "answer": answer}
        if line_of_key(json.dumps(entry, ensure_ascii=False).encode()):
            self.problem = (
                f"{self.file.name} is not written: what the model was asked, or has answered, holds what looks like a "
                f"key or a password.\nKeep it out of the prompt, and again: {self.command}"
            )
            raise RequestRefused(self.problem)
        self.entries.append(entry)
        self._write()
        return _response(answer)

    def _read(self) -> dict[str, list[dict[str, Any]]]:
        try:
            found = json.loads(self.file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise TrialRefused(f"{self.file}: {error}.", cure=f"Remove it, and record: {self.command}") from None
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        """What other tests have recorded stays."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self._read(), self.test: self.entries}, indent=1, sort_keys=True, ensure_ascii=False)
        self.file.write_text(f"{text}\n", "utf-8")

    def _different(self, asked: Mapping[str, Any]) -> str:
        """What is asked now, beside the recorded request that is most like it."""
        now = _lines(asked)
        known = [_lines(each["asked"]) for each in self.entries]
        nearest = max(known, key=lambda lines: difflib.SequenceMatcher(None, lines, now).ratio())
        lines = list(difflib.unified_diff(nearest, now, "recorded", "asked now", lineterm="", n=2))
        more = [f"… and {len(lines) - SHOWN} lines more"] if len(lines) > SHOWN else []
        said = "\n".join([*lines[:SHOWN], *more])
        return (
            f"{self.file.name} has no answer to what the model is asked now:\n{said}\nRecord it again: {self.command}"
        )


def _response(answer: Mapping[str, Any]) -> httpx.Response:
    body = answer["body"] if isinstance(answer["body"], str) else json.dumps(answer["body"])
    return httpx.Response(200, headers={"content-type": answer["type"]}, content=body)


def _without(text: str, key: str) -> str:
    return text.replace(key, "…") if key else text


def _lines(asked: Mapping[str, Any]) -> Sequence[str]:
    return json.dumps(asked, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
