"""How a page leaves: as HTML that a browser shows at once, with NiceGUI behind it only where somebody can act.

What nobody can act on needs no script library and no socket. Where there is a button or something live, the same HTML
is painted first and stands until NiceGUI has taken its place (`static/circuit.js` keeps what was typed and pressed
before), and the still parts are moved over rather than drawn and sent again.
"""

from __future__ import annotations

from html import escape
from typing import Any, cast

from fastapi import Request
from nicegui import Client
from nicegui.element import Element
from starlette.responses import HTMLResponse, Response

from circuit_script.dashboard import shell, theme
from circuit_script.dashboard.still import Part, html_of, html_tag

PLACE = b'<div id="app" >'  # where NiceGUI's page begins
# Its scripts would run before anything is painted: `static/circuit.js` starts them, in this order, after that.
LATER = (
    (b"<script defer src=", b'<script type="later" data-src='),
    (b'<script type="module">', b'<script type="later">'),
)


def answer(client: Client, request: Request, title: str, theme_name: str) -> Response:
    """The response with what was built for ``client``."""
    if client.is_deleted:  # while it was built, for want of room
        return shell.too_many()
    content = _content(client.content)
    if not _is_acted_on(client):
        client.delete()
        return HTMLResponse(_whole(content, title, theme_name), headers={"cache-control": "no-store"})
    for element in client.elements.values():
        if isinstance(element, Part):
            element.is_sent()
    response = client.build_response(request)
    page = bytes(response.body)
    for eager, later in LATER:  # no data has a "<" in it: NiceGUI and `html_of` write them out
        page = page.replace(eager, later)
    if PLACE not in page:
        raise RuntimeError("this NiceGUI's page has another form")
    return HTMLResponse(page.replace(PLACE, PLACE + content.encode(), 1), headers={"cache-control": "no-store"})


def _is_acted_on(client: Client) -> bool:
    """Whether anything needs the browser's partner: a listener, a timer, a dialog, a toast."""
    return bool(client.outbox.messages) or any(
        element._event_listeners or not _is_plain(element)
        for element in client.content.descendants()
        if not isinstance(element, Part)
    )


def _is_plain(element: Element) -> bool:
    """Whether a browser knows it without NiceGUI: neither a timer nor a dialog."""
    return element.component is None and "-" not in element.tag


def _content(element: Element) -> str:
    """An element as the browser would have it in the end, but for its listeners."""
    if isinstance(element, Part):
        inside = "".join(map(html_of, element.tree))
        return f'<div id="c{element.id}" class="still" data-part="{element.id}">{inside}</div>'
    if not _is_plain(element):
        return ""  # nothing to see yet
    attributes: dict[str, Any] = {"id": f"c{element.id}"}
    if element.classes:
        attributes["class"] = " ".join(element.classes)
    if element.style:
        attributes["style"] = "".join(f"{name}:{value};" for name, value in element.style.items())
    attributes.update(cast(dict[str, Any], element.props))
    inside = escape(element._text or "") + "".join(map(_content, element.default_slot.children))
    return html_tag(element.tag, attributes, inside)


def _whole(content: str, title: str, theme_name: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="shortcut icon" href="{theme.MARK}">{theme.head_html(theme_name)}</head>'
        f"<body>{content}</body></html>"
    )
