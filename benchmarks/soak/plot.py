"""The samples as one SVG: a panel each for memory, latency, queue and descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import RESULTS
from benchmarks.soak.samples import Sample

WIDTH, HEIGHT, LEFT, TOP = 640, 120, 70, 24
PANELS = (
    ("memory, MB (PSS and RSS)", ("pss", "rss")),
    ("road, ms (p50 and p95)", ("p50", "p95")),
    ("queue and its indexes, MB", ("queue",)),
    ("open files", ("descriptors",)),
)
COLOURS = ("#2563eb", "#d97706")


def write(samples: Sequence[Sample], path: Path = RESULTS / "soak.svg") -> Path:
    """Draw them; where it was written."""
    panels = [_panel(samples, title, names, number) for number, (title, names) in enumerate(PANELS)]
    size = f'width="{WIDTH + LEFT + 20}" height="{(HEIGHT + TOP + 20) * len(PANELS)}"'
    style = "<style>text{font:12px sans-serif;fill:#444}</style><rect width='100%' height='100%' fill='white'/>"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(panels)}</svg>\n', "utf-8")
    return path


def _panel(samples: Sequence[Sample], title: str, names: Sequence[str], number: int) -> str:
    top = number * (HEIGHT + TOP + 20) + TOP
    highest = max((float(getattr(each, name)) for each in samples for name in names), default=0.0) * 1.1 or 1.0
    longest = samples[-1].at if samples else 1.0
    lines = []
    for name, colour in zip(names, COLOURS, strict=False):
        points = " ".join(
            f"{LEFT + each.at / longest * WIDTH:.1f},{top + HEIGHT * (1 - float(getattr(each, name)) / highest):.1f}"
            for each in samples
        )
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>')
    frame = f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>'
    words = (
        f'<text x="{LEFT}" y="{top - 6}">{title}</text><text x="4" y="{top + 12}">{highest:,.0f}</text>'
        f'<text x="4" y="{top + HEIGHT}">0</text><text x="{LEFT + WIDTH - 60}" y="{top + HEIGHT + 14}">'
        f"{longest / 60:.0f} min</text>"
    )
    return frame + words + "".join(lines)
