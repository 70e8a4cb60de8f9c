"""``python -m training.judgment CORPUS``: train the model of level 16, write its weights into the package.

The corpus is a folder with ``dev.jsonl``. The same corpus and the same code give the same weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from circuit_script.judgment.features import ROWS
from circuit_script.judgment.model import WEIGHTS, Model, stored
from training.judgment import windows
from training.judgment.corpus import MADE
from training.judgment.fit import Floats
from training.judgment.folds import OutOfFold, calibrated, material, out_of_fold, scored, trained

KEPT = Path(".bench/judgment")


def quantised(weights: Floats, largest: int) -> tuple[np.ndarray, float]:
    """Whole numbers and their unit; the few that are larger than nearly all others are cut."""
    there = np.abs(weights[weights != 0])
    unit = float(np.quantile(there, 0.9995)) / largest
    return np.clip(np.rint(weights / unit), -largest, largest).astype(np.int32), unit


def unsure(scores: Floats, attack: np.ndarray) -> tuple[float, float]:
    """Between the scores that 5 % and 0.5 % of the harmless texts reach."""
    low, high = np.quantile(scores[~attack], [0.95, 0.995])
    return float(low), float(high)


def report(judged: OutOfFold, scores: Floats, name: str) -> None:
    """How well the corpus's own texts are told apart, none of whose sources was seen."""
    chosen = np.array([not each.source.startswith(("in ", "own-")) for each in judged.texts])
    attack = np.array([each.attack for each in judged.texts])
    harmless, attacks = np.sort(scores[chosen & ~attack]), scores[chosen & attack]
    below = np.searchsorted(harmless, attacks) + np.searchsorted(harmless, attacks, side="right")
    one, tenth = (np.mean(attacks > harmless[-1 - int(len(harmless) * rate)]) for rate in (0.01, 0.001))
    area = below.mean() / 2 / len(harmless)
    print(f"{name}: area {area:.4f}, found at 1 % false alarms {one:.3f}, at 0.1 % {tenth:.3f}")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.judgment", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--into", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    corpus, own, table = material(options.corpus, KEPT)
    judged = out_of_fold(corpus, own, table, KEPT)
    bend, shift = calibrated(judged)
    scores = scored(judged)
    print(f"calibration: bend {bend:.3f}, shift {shift:.3f}")
    report(judged, judged.logits, "words and classes alone")
    report(judged, judged.levels.max(axis=1), "levels alone")
    report(judged, scores, "together")
    band = unsure(scores, np.array([each.attack for each in judged.texts]))
    places = [at for at, each in enumerate(corpus.texts) if each.source not in MADE]
    weights = trained(corpus, own, places, table, 1000)
    text, text_unit = quantised(weights[:ROWS], 127)
    kind, kind_unit = quantised(weights[ROWS:-1], 32767)

    model = Model(table, text, kind, (text_unit, kind_unit * windows.KIND), float(weights[-1]), bend, shift, band)
    stored(model, options.into)
    print(f"written: {options.into}, {options.into.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
