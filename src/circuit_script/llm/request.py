"""What a request may ask for, and how many tokens it is at most.

The wire is that of OpenAI's chat completions, which other providers speak, too. Only what is listed here may be asked
for: what may cost more than the tokens of text and images (searches, sound, a dearer tier) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from circuit_script.errors import RequestRefused
from circuit_script.llm.words import hashed, plain

IMAGE_TOKENS = 50_000  # at most, of one image: gpt-4o-mini counts 48,169 for eight tiles of 5,667 and its base of 2,833
MESSAGE_TOKENS = 16  # what stands around a message in a chat template
TOOL_TOKENS = 64  # what stands around the description of a tool
REQUEST_TOKENS = 256  # what stands around all of it
MAX_CHOICES = 128
MAX_REQUEST = 24 * 1024 * 1024  # bytes

# Models that are charged for more than tokens of text, or by another wire.
DEARER = re.compile(r"search|audio|realtime|transcribe|tts|image|deep-research|sonar")
PLAIN = frozenset({
    "frequency_penalty", "logit_bias", "logprobs", "metadata", "parallel_tool_calls", "presence_penalty",
    "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier", "seed", "stop", "store",
    "temperature", "tool_choice", "top_logprobs", "top_p", "user", "verbosity",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read. ``tokens_in`` is what it is at most; ``max_tokens`` is None when its author said none;
    ``body`` is what is sent on, without model and token bound."""

    model: str | None
    body: Mapping[str, Any]
    tokens_in: int
    max_tokens: int | None
    choices: int
    stream: bool
    last_words: bytes  # a hash of what was said since the model's last answer
    opening: bytes  # a hash of what was said before its first
    length: int  # messages
    begins: bool  # the model has not answered yet

    def fingerprint(self, model: str) -> bytes:
        """What stands for the call with all its arguments."""
        said = {**self.body, "max_tokens": self.max_tokens, "model": model}
        return msgspec.json.encode(said, order="deterministic")


def read(given: Mapping[str, Any]) -> Asked:
    """Check a request as a child has sent it. Raises RequestRefused, which names what it may not ask for."""
    body = {name: value for name, value in given.items() if value is not None}
    model = body.pop("model", None)
    if model is not None and not isinstance(model, str):
        _refuse(f"model is {model!r}", "Name one, like gpt-4o-mini.")
    bounds = [_count(body, name) for name in ("max_completion_tokens", "max_tokens")]
    said = [each for each in bounds if each is not None]
    choices = _count(body, "n") or 1
    if choices > MAX_CHOICES:
        _refuse(f"n is {choices}", f"Ask for {MAX_CHOICES} at most.")
    stream = bool(body.pop("stream", False))
    body.pop("stream_options", None)
    kept = {}
    for name, value in body.items():
        if name in PLAIN:
            kept[name] = value
        elif (check := _CHECKED.get(name)) is not None:
            kept[name] = check(value)
        else:
            _refuse(f"{name} is not passed on: nobody knows that it costs nothing beside tokens", "Leave it out.")
    if "messages" not in kept:
        _refuse("messages are missing", "Say something.")
    if choices > 1:
        kept["n"] = choices
    bound = min(said) if said else None
    messages = kept["messages"]
    answers = [place for place, each in enumerate(messages) if each.get("role") == "assistant"] or [-1]
    last_words = hashed([plain(each) for each in messages[answers[-1] + 1 :]])
    opening = hashed(messages[: answers[0]] if answers[0] >= 0 else messages)
    return Asked(model, kept, _tokens(kept), bound, choices, stream, last_words, opening, len(messages), answers[0] < 0)


def _refuse(wrong: str, cure: str) -> NoReturn:
    raise RequestRefused(f"model call: {wrong}.", cure=cure, page="model-request")


def _count(body: dict[str, Any], name: str) -> int | None:
    value = body.pop(name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        _refuse(f"{name} is {value!r}", "Write a positive whole number.")
    return int(value)


def _messages(value: Any) -> Any:
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        _refuse("messages are no list of messages", "Give at least one.")
    for message in value:
        content = message.get("content")
        if message.get("audio") is not None:
            _refuse("a message has sound", "Only text and images are passed on.")
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("text", "refusal", "image_url"):
                _refuse(f"a message has a part of type {kind!r}", "Only text and images are passed on.")
    return value


def _tools(value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        _refuse("tools are no list", "Give function tools.")
    for tool in value:
        if tool.get("type") not in ("function", "custom"):
            _refuse(f"a tool of type {tool.get('type')!r} may cost more than tokens", "Use function tools.")
    return value


def _tier(value: Any) -> Any:
    if value not in ("default", "flex"):
        _refuse(f"service_tier {value!r} may cost more", 'Leave it out, or say "default" or "flex".')
    return value


def _modalities(value: Any) -> Any:
    if value != ["text"]:
        _refuse(f"modalities are {value!r}", 'Only ["text"] is answered.')
    return value


_CHECKED: Mapping[str, Callable[[Any], Any]] = {
    "messages": _messages,
    "tools": _tools,
    "service_tier": _tier,
    "modalities": _modalities,
}


def _tokens(body: Mapping[str, Any]) -> int:
    """Tokens of the input, at most: a tokenizer of bytes (as OpenAI, Llama, Qwen, Mistral and DeepSeek have one) makes
    no more tokens than there are bytes of UTF-8. What stands around messages and tools is added; an image counts
    IMAGE_TOKENS, however large it is.
    """
    messages, images = _without_images(body["messages"])
    sent = {name: body[name] for name in ("tools", "response_format", "tool_choice") if name in body}
    size = len(msgspec.json.encode(messages)) + len(msgspec.json.encode(sent))
    if size > MAX_REQUEST:
        _refuse(f"it has {size:,} bytes", f"Send {MAX_REQUEST:,} at most.")
    around = REQUEST_TOKENS + MESSAGE_TOKENS * len(messages) + TOOL_TOKENS * len(body.get("tools", ()))
    return size + around + images * IMAGE_TOKENS


def _without_images(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """The messages with each image's address left out, and how many there are: what an image costs is not its bytes."""
    images = 0
    bare = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            texts = [part for part in content if part.get("type") != "image_url"]
            images += len(content) - len(texts)
            message = {**message, "content": texts}
        bare.append(message)
    return bare, images
