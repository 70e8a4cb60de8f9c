"""What long documents take that nobody made for it, and how many of them are held: the manuals, pages, tables and
sources that come with Python, with the packages beside this one and, on Debian, with the system; 64 KB of each.
"""

from __future__ import annotations

import random
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure
from benchmarks.judgment.speed import LIMIT, of_bytes, spent
from circuit_script.judgment.policy import PRESETS
from circuit_script.judgment.reading import read
from tests.unit.judgment.hostile import SIZE

MANUALS = Path("/usr/share/doc")
KINDS = (".css", ".csv", ".html", ".js", ".json", ".md", ".py", ".rst", ".txt", ".xml")
OF_EACH = 40
SEED = 11


def documents(of_each: int) -> Iterator[tuple[Path, str]]:
    """Some of each kind, from the beginning or from a line within."""
    rng = random.Random(SEED)
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for folder in sorted({Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib")), MANUALS}):
        for path in sorted(folder.rglob("*")):
            if path.suffix in found and path.is_file() and path.stat().st_size >= SIZE:
                found[path.suffix].append(path)
    for paths in found.values():
        for path in rng.sample(paths, min(of_each, len(paths))):
            text = path.read_bytes().decode("utf-8", "replace")
            start = text.rfind("\n", 0, rng.randrange(max(len(text) - SIZE, 1))) + 1 if rng.random() < 0.5 else 0
            yield path, of_bytes(text[start : start + SIZE])


def figures(quick: bool) -> list[Figure]:
    some = [*documents(4 if quick else OF_EACH)]
    times = sorted(((spent(text), path.name) for path, text in some), reverse=True)
    scores = [read(text)[0] for _, text in some]
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(path.suffix for path, _ in some).items()))
    over = sum(taking > LIMIT for taking, _ in times)
    slowest = ", ".join(f"{name} {taking:.0f}" for taking, name in times[:4])
    usual = PRESETS["balanced"]
    return [
        Figure("documents_p50_ms", round(float(np.median([taking for taking, _ in times])), 1), "ms", "< 20", kinds),
        Figure("documents_worst_ms", round(times[0][0], 1), "ms", "< 20", f"{over} of {len(times)} do: {slowest}"),
        _share("documents_as_data_pct", scores, usual.neutralize),
        _share("documents_quarantined_pct", scores, usual.quarantine),
    ]


def _share(name: str, scores: list[float], least: float) -> Figure:
    share = 100 * sum(score >= least for score in scores) / len(scores)
    return Figure(name, round(share, 2), "%", "", f"of these documents score {least} or more, all of them harmless")
