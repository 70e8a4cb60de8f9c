"""What Slack's errors mean. It answers most of them with 200 and ``{"ok": false, "error": …}``:
https://api.slack.com/methods/chat.postMessage#errors. What is not listed here is a refusal."""

from __future__ import annotations

import httpx

from circuit_script.connectors.api import Fault

ANY = (200, 599)

FAULTS = (
    *(Fault(ANY, "slow_down", each) for each in ("ratelimited", "rate_limited")),
    *(
        Fault(ANY, "token", each)
        for each in ("invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired")
    ),
    # It says itself that some of it may have been done.
    *(Fault(ANY, "unknown", each) for each in ("internal_error", "fatal_error")),
    *(Fault(ANY, "down", each) for each in ("service_unavailable", "team_added_to_org")),
    Fault(ANY, "later", "request_timeout"),  # what was sent came in part
    *(
        Fault(ANY, "refused", each)
        for each in (
            "channel_not_found",
            "not_in_channel",
            "is_archived",
            "is_inactive",
            "restricted_action",
            "missing_scope",
            "no_permission",
            "msg_too_long",
            "no_text",
            "too_many_attachments",
            "invalid_blocks",
            "message_not_found",
            "cant_update_message",
            "edit_window_closed",
            "invalid_name",
            "too_many_emoji",
            "too_many_reactions",
        )
    ),
    Fault(429, "slow_down"),
)

MEANINGS = {
    "channel_not_found": "there is no such channel, or the app may not see it",
    "not_in_channel": "the app is not in this channel: invite it",
    "is_archived": "this channel is archived",
    "missing_scope": "the app was not given the scope that this needs",
    "restricted_action": "the workspace lets only some people post there",
}


def code_of(response: httpx.Response) -> str | None:
    found = response.json()
    if not isinstance(found, dict) or found.get("ok") is True:
        return None
    error = found.get("error")
    return error if isinstance(error, str) and error else None
