"""A linear model of windows: a text is an attack if one of its windows is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import minimize

from circuit_script.judgment.features import KINDS, ROWS, read
from training.judgment.corpus import PART, WEAK, Text
from training.judgment.windows import Windows

Floats = npt.NDArray[np.float64]
SPREAD = 5  # sources that must have a feature before it may count
C = 1.0
LONGEST_NUMBER = 6  # digits of a number that does not count
SIGNS = (" ", ", ", ",", "; ", ";", ".", ": ", ":", "-", " - ", "/", "\n")  # between two numbers
LOW = -0.3  # no weight is lower: what stands around an attack cannot talk it down


def masses(texts: Sequence[Text], power: float = 0.5) -> Floats:
    """How much each text counts: a large source more than a small one, but less than its texts; both labels alike."""
    sources = [each.source.partition(PART)[0] for each in texts]
    sizes = Counter(zip(sources, (each.attack for each in texts), strict=True))
    mass = np.array([sizes[source, each.attack] ** -power for source, each in zip(sources, texts, strict=True)])
    mass *= [0.4 if each.attack and each.source.startswith(WEAK) else 1.0 for each in texts]
    attack = np.array([each.attack for each in texts])
    for label in (False, True):
        mass[attack == label] *= len(texts) / 2 / mass[attack == label].sum()
    return mass


def spread(found: Windows, texts: Sequence[Text], table: npt.NDArray[np.uint8], least: int = SPREAD) -> Floats:
    """1 for the features that enough sources have; what only one source says is not learnt."""
    names = sorted({each.source for each in texts})
    number = np.array([names.index(each.source) for each in texts])[found.of]
    by_source = sp.csr_matrix((np.ones(len(number), np.float32), (number, np.arange(len(number)))))
    has = (by_source @ (found.rows > 0).astype(np.float32)).tocsr()
    has.data[:] = 1
    sources = np.asarray(has.sum(axis=0)).ravel()
    kept = (sources >= least).astype(np.float64)
    kept[ROWS:] = sources[ROWS:] >= 3
    kept[of_numbers(table)] = 0
    return kept


def of_numbers(table: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """The rows of what columns and rows of numbers have: attacks are written in numbers, too, but those are decoded."""
    words = ["0" * size for size in range(1, LONGEST_NUMBER + 1)]
    texts = [
        f"{first}{sign}{second}{sign}{third}" for sign in SIGNS for first, second, third in product(words, repeat=3)
    ]
    rows = (rows for _, rows in read(texts, table).families.values())
    return np.unique(np.concatenate([each.astype(np.intp) for each in rows]))


def logistic(
    rows: Any, labels: Floats, mass: Floats, c: float, start: Floats, low: float | None, rounds: int
) -> Floats:
    """Weights and, last, the bias; ``low`` is the lowest weight allowed."""
    turned = rows.T.tocsr()
    sign = 2 * labels - 1

    def loss(weights: Floats) -> tuple[float, Floats]:
        margin = sign * (rows @ weights[:-1].astype(np.float32) + weights[-1])
        value = float(mass @ np.logaddexp(0, -margin))
        pull = -mass * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        slope = np.append(turned @ pull.astype(np.float32), pull.sum()).astype(np.float64)
        slope[:-1] += weights[:-1] / c
        return value + float(weights[:-1] @ weights[:-1]) / (2 * c), slope

    bounds = None if low is None else [(low, None)] * rows.shape[1] + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": rounds})
    return np.asarray(found.x)


def best(scores: Floats, of: npt.NDArray[np.intp], number: int) -> Floats:
    top = np.full(number, -1e9)
    np.maximum.at(top, of, scores)
    return top


def fit(
    found: Windows,
    texts: Sequence[Text],
    table: npt.NDArray[np.uint8],
    *,
    c: float = C,
    least: int = SPREAD,
    low: float | None = LOW,
    power: float = 0.5,
) -> Floats:
    """The weights: first all windows of short texts, then of each attack the window that looks most like one."""
    attack = np.array([each.attack for each in texts])
    mass = masses(texts, power)
    kept = spread(found, texts, table, least)
    rows = (found.rows @ sp.diags(kept.astype(np.float32))).tocsr()
    rows.eliminate_zeros()
    windows_of = np.bincount(found.of, minlength=len(texts))
    weights = np.zeros(ROWS + KINDS + 1)
    labels = attack[found.of]
    for turn in range(2):
        if turn == 0:
            chosen = ~labels | (windows_of[found.of] <= 4)
        else:
            scores = rows @ weights[:-1] + weights[-1]
            chosen = ~labels | (scores >= best(scores, found.of, len(texts))[found.of] - 1e-6)
        numbers = np.bincount(found.of[chosen], minlength=len(texts))[found.of[chosen]]
        own = mass[found.of[chosen]] / np.where(labels[chosen], numbers, np.sqrt(numbers))
        weights = logistic(rows[chosen], labels[chosen].astype(float), own, c, weights, low, 25 if turn == 0 else 40)
    return weights
