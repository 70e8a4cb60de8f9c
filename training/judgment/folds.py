"""Judging texts whose sources the model has not seen: sources are left out in turn, attacks and harmless ones alike."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.optimize import minimize

from circuit_script.judgment import features
from circuit_script.judgment.model import DISGUISE, LEVELS, summed
from training.judgment import corpus, fit
from training.judgment.corpus import FOLD, FOLDS, MADE, Text
from training.judgment.fit import Floats, best
from training.judgment.reading import read
from training.judgment.windows import Windows, plain, windows

GRAMMAR, EMBEDDED, HELD = 4000, 6000, 600
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Read:
    """Texts, their views, what the levels say of them (a row each, a column for each of LEVELS), how
    disguised they are, and their windows."""

    texts: list[Text]
    views: list[list[str]]
    levels: Floats
    disguises: Floats
    windows: Windows


# What a reading does not depend on.
APART = {
    "__init__.py",
    "__main__.py",
    "model.py",
    "tribunal.py",
    "policy.py",
    "protocol.py",
    "residue.py",
    "verdict.py",
}


@cache
def fingerprint() -> str:
    """Of the code and the data that a reading depends on."""
    own = Path(__file__).parent
    package = Path(features.__file__).parent
    files = sorted(
        each
        for folder in (own, package)
        for each in folder.rglob("*")
        if each.suffix in {".py", ".toml", ".txt"} and each.name not in APART
    )
    told = hashlib.sha256()
    for each in files:
        told.update(each.name.encode() + b"\0" + each.read_bytes())
    return told.hexdigest()


def key_of(texts: Sequence[Text]) -> str:
    told = hashlib.sha256(fingerprint().encode())
    for each in texts:
        told.update(each.text.encode("utf-8", "surrogatepass") + b"\0")
    return told.hexdigest()[:16]


def read_all(texts: Sequence[Text], table: npt.NDArray[np.uint8], *, most: int = 12, kept: Path | None = None) -> Read:
    """Texts as levels and windows; views and findings are kept in a file, for another run over the same texts."""
    path = kept / f"{key_of(texts)}.pickle" if kept else None
    if path and path.is_file():
        found = pickle.loads(path.read_bytes())
    else:
        found = [read(each.text) for each in texts]
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pickle.dumps(found))
    levels = np.array([[each.get(level, 0.0) for level in LEVELS] for _, each in found])
    views = [views for views, _ in found]
    disguises = np.array([each[DISGUISE] for _, each in found])
    return Read(list(texts), views, levels, disguises, windows(views, table, most=most))


def stacked(parts: Sequence[tuple[Windows, Sequence[int] | None, int]]) -> Windows:
    """Windows of several collections, of each the texts at some places, numbered one after the other."""
    rows, of, done = [], [], 0
    for found, places, number in parts:
        if places is None:
            rows.append(found.rows)
            of.append(found.of + done)
            done += number
        else:
            new = np.full(number, -1)
            new[places] = np.arange(len(places))
            chosen = np.flatnonzero(new[found.of] >= 0)
            rows.append(found.rows[chosen])
            of.append(new[found.of[chosen]] + done)
            done += len(places)
    return Windows(sp.vstack(rows).tocsr(), np.concatenate(of))


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """Each text judged by a model that has not seen its source; ``fold`` is which one."""

    texts: list[Text]
    logits: Floats
    levels: Floats
    disguises: Floats
    fold: npt.NDArray[np.intp]


def material(folder: Path, kept: Path | None, say: Say = print) -> tuple[Read, Read, npt.NDArray[np.uint8]]:
    """The corpus and our own sentences."""
    table = features.kinds()
    main = read_all([each for each in corpus.corpus(folder) if each.source != "own-embedded"], table, kept=kept)
    say(f"read {len(main.texts)} texts of the corpus, {main.windows.rows.shape[0]} windows")
    own = read_all([*corpus.grammar(GRAMMAR), *corpus.own(test=False), *corpus.written()], table, kept=kept)
    return main, own, table


def trained(main: Read, own: Read, places: Sequence[int], table: npt.NDArray[np.uint8], seed: int) -> Floats:
    """Weights from some of the corpus, our own sentences, and attacks embedded in harmless texts."""
    chosen = [main.texts[at] for at in places]
    made = corpus.embedded([*chosen, *corpus.own(test=False), *corpus.written()], EMBEDDED, seed)
    inside = windows([[plain(each.text)] for each in made], table, most=6)
    everything = stacked([(main.windows, places, len(main.texts)), (inside, None, len(made)), (own.windows, None, 0)])
    return fit.fit(everything, [*chosen, *made, *own.texts], table)


def logits(weights: Floats, found: Windows, number: int) -> Floats:
    return best(found.rows @ weights[:-1] + weights[-1], found.of, number)


def out_of_fold(
    main: Read,
    own: Read,
    table: npt.NDArray[np.uint8],
    kept: Path | None,
    *,
    folds: int | None = None,
    say: Say = print,
) -> OutOfFold:
    """All texts, attacks embedded in texts of left-out sources, and our own sentences for tests."""
    path = kept / f"judged-{folds or len(FOLDS)}-{key_of(main.texts)}.pickle" if kept else None
    if path and path.is_file():
        return pickle.loads(path.read_bytes())
    fold = np.array([FOLD[each.source] for each in main.texts])
    shingles = [corpus.shingles(each[0]) for each in main.views]
    made = np.array([each.source in MADE for each in main.texts])
    trigger = read_all(corpus.own(test=True), table, kept=kept)
    texts, found, levels, disguises, numbers = [], [], [], [], []
    for number in range(folds or len(FOLDS)):
        test = np.flatnonzero(fold == number)
        seen: set[str] = set().union(*(shingles[at] for at in test))
        places = [
            at for at in np.flatnonzero((fold != number) & ~made) if len(shingles[at] & seen) < 0.5 * len(shingles[at])
        ]
        weights = trained(main, own, places, table, number)
        inside = read_all(
            corpus.embedded([main.texts[at] for at in test if not made[at]], HELD, 100 + number),
            table,
            most=99,
            kept=kept,
        )
        for read_in, chosen in (
            (main, test),
            (inside, np.arange(len(inside.texts))),
            (trigger, np.arange(len(trigger.texts))),
        ):
            texts += [read_in.texts[at] for at in chosen]
            part = stacked([(read_in.windows, chosen, len(read_in.texts))])
            found.append(logits(weights, part, len(chosen)))
            levels.append(read_in.levels[chosen])
            disguises.append(read_in.disguises[chosen])
            numbers.append(np.full(len(chosen), number))
        say(f"left out {number + 1} of {len(FOLDS)}: {', '.join(FOLDS[number])}")
    result = OutOfFold(
        texts, np.concatenate(found), np.vstack(levels), np.concatenate(disguises), np.concatenate(numbers)
    )
    if path:
        path.write_bytes(pickle.dumps(result))
    return result


def calibrated(judged: OutOfFold) -> tuple[float, float]:
    """The bend and the shift that make a probability of a sum: learnt from texts of sources that the model had not
    seen."""
    mass = fit.masses(judged.texts) * [0.3 if each.kind == "embedded" else 1.0 for each in judged.texts]
    mass /= mass.sum()
    sign = np.array([1.0 if each.attack else -1.0 for each in judged.texts])
    sums = summed(judged.logits, judged.levels, judged.disguises)

    def loss(numbers: Floats) -> tuple[float, Floats]:
        margin = sign * (numbers[0] * sums + numbers[1])
        pull = -mass * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        return float(mass @ np.logaddexp(0, -margin)), np.array([pull @ sums, pull.sum()])

    found = minimize(loss, np.array([0.5, 0.0]), jac=True, method="L-BFGS-B").x
    return float(found[0]), float(found[1])


def scored(judged: OutOfFold) -> Floats:
    """The score of each text. Two numbers are learnt for all texts together: they change no order."""
    bend, shift = calibrated(judged)
    sums = summed(judged.logits, judged.levels, judged.disguises)
    return np.asarray(1 / (1 + np.exp(-(bend * sums + shift))))
