"""``python -m benchmarks.judgment``: measure, print the tables, write results/judgment.json and judgment.svg.

``CIRCUIT_SHARED`` names the folder with ``corpora/injection``; without it only speed is measured. Texts are judged by
models that have not seen their source. What is measured alone (``--only speed``) replaces its own figures.
"""

from __future__ import annotations

import sys

from benchmarks.figures import RESULTS, Figure
from benchmarks.judgment import documents, evasion, peers, quality, road, speed
from benchmarks.judgment.drawing import curves
from benchmarks.runner import Apart, main_apart


async def of_quality(quick: bool) -> list[Figure]:
    judged = quality.judged(quick)
    if not judged:
        return [Figure("auc", None, "", ">= 0.95", quality.ABSENT)]
    return quality.figures(judged)


async def of_peers(quick: bool) -> list[Figure]:
    judged = quality.judged(quick)
    if not judged:
        return [Figure("peers", None, "", "", quality.ABSENT)]
    scores = {"circuit": judged.scores} | peers.scores(judged)
    if not quick:
        (RESULTS / "judgment.svg").write_text(curves(scores, judged.attack), encoding="utf-8")
    return [
        figure for name, found in scores.items() if name != "circuit" for figure in quality.beside(name, judged, found)
    ]


async def of_speed(quick: bool) -> list[Figure]:
    return speed.figures(quick)


async def of_documents(quick: bool) -> list[Figure]:
    return documents.figures(quick)


async def of_evasion(quick: bool) -> list[Figure]:
    return evasion.figures(quick)


GROUPS: dict[str, Apart] = {
    "speed": of_speed,  # before the others fill memory and caches
    "documents": of_documents,
    "quality": of_quality,
    "peers": of_peers,
    "evasion": of_evasion,
    "road": road.figures,
}


if __name__ == "__main__":
    sys.exit(main_apart("judgment", "Judgment of untrusted texts", GROUPS))
