"""A picture of found attacks against false alarms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

WIDE, HIGH, EDGE = 640, 420, 60
COLOURS = ("#0b5fff", "#888888", "#c2410c", "#15803d", "#7e22ce")
FIRST = 1e-4  # the lowest share of false alarms that is drawn


def curves(scores: Mapping[str, npt.NDArray[np.float64]], attack: npt.NDArray[np.bool_]) -> str:
    """An SVG; the share of false alarms is drawn by its logarithm."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{HIGH}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>',
    ]
    for share in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        x = _x(share)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="20" y2="{HIGH - EDGE}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{HIGH - EDGE + 16}" text-anchor="middle">{100 * share:g} %</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(share)
        parts.append(f'<line x1="{EDGE}" x2="{WIDE - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{EDGE - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * share:g} %</text>')
    parts.append(f'<text x="{WIDE / 2}" y="{HIGH - 20}" text-anchor="middle">harmless texts flagged</text>')
    parts.append(
        f'<text x="16" y="{HIGH / 2}" transform="rotate(-90 16 {HIGH / 2})" text-anchor="middle">attacks found</text>'
    )
    for number, (name, found) in enumerate(scores.items()):
        order = np.argsort(-found, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(found[order])), len(found) - 1)
        hits = np.cumsum(attack[order])[ends] / max(1, attack.sum())
        alarms = np.cumsum(~attack[order])[ends] / max(1, (~attack).sum())
        thin = np.unique(np.geomspace(1, len(ends), 400).astype(int)) - 1
        points = " ".join(f"{_x(alarms[at]):.1f},{_y(hits[at]):.1f}" for at in thin if alarms[at] >= FIRST)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{EDGE + 10}" y="{36 + 16 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(share: float) -> float:
    return float(EDGE + (WIDE - 20 - EDGE) * (np.log10(max(share, FIRST)) + 4) / 4)


def _y(share: float) -> float:
    return HIGH - EDGE - (HIGH - EDGE - 20) * share
