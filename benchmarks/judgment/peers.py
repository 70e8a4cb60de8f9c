"""What one would try first: three expressions, a logistic regression of pieces of words, a package with rules."""

from __future__ import annotations

import re

import numpy as np

from benchmarks.judgment.quality import Floats, Judged, corpus_of

NAIVE = [
    re.compile(each, re.IGNORECASE)
    for each in (
        r"ignore (all |the |your |my )?(previous|prior|above) instructions",
        r"(reveal|show|print|repeat) (me )?(your|the) (system )?prompt",
        r"you are now|act as|pretend to be|jailbreak|developer mode",
    )
]


def scores(found: Judged) -> dict[str, Floats]:
    made = {"three regexes": np.array([float(sum(bool(each.search(text)) for each in NAIVE)) for text in found.texts])}
    for name, measured in (("n-grams", ngrams), ("promptbadger", badger)):
        try:
            made[name] = measured(found)
        except ImportError as error:
            print(f"{name} is not measured: {error}")
    return made


def ngrams(found: Judged) -> Floats:
    """Pieces of three to five characters, hashed, and the same left-out sources."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    rows = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=1 << 18).transform(
        [text[:4000] for text in found.texts]
    )
    learnt, made = corpus_of(found), np.zeros(len(found.texts))
    for fold in np.unique(found.fold):
        model = SGDClassifier(loss="log_loss", alpha=1e-6, random_state=1, class_weight="balanced")
        model.fit(rows[learnt & (found.fold != fold)], found.attack[learnt & (found.fold != fold)])
        made[found.fold == fold] = model.decision_function(rows[found.fold == fold])
    return made


def badger(found: Judged) -> Floats:
    """promptbadger, its rules and its own classifier."""
    from promptbadger import Scanner

    scanner = Scanner(classifier=True)
    return np.array([float(scanner.scan(text[:8000]).score) for text in found.texts])
