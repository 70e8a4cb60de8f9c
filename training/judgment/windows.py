"""Texts as rows of numbers: each window of a text is a row of what `features` reads in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from circuit_script.judgment import features
from circuit_script.judgment.canon import canonical
from circuit_script.judgment.features import KINDS, ROWS, WINDOW
from circuit_script.judgment.words import classes

KIND = 0.2  # of a class of words beside the rest, in training
MOST = 12  # windows of one text


def plain(text: str) -> str:
    return canonical(text).plain


@dataclass(frozen=True, slots=True)
class Windows:
    """``of`` is the text of each row."""

    rows: Any
    of: npt.NDArray[np.intp]


def windows(
    texts: Sequence[Sequence[str]], table: npt.NDArray[np.uint8], *, most: int = MOST, step: int = WINDOW // 4
) -> Windows:
    """The windows of texts, each given by its views; of long views a part, evenly."""
    columns, values, ends, of = [], [], [0], []
    for number, text in ((number, view) for number, each in enumerate(texts) for view in each):
        length = len(text)
        starts = list(range(0, max(1, length - WINDOW + step), step))
        if len(starts) > most:
            starts = [starts[at * (len(starts) - 1) // (most - 1)] for at in range(most)]
        read = features.read([text], table)
        for start in starts:
            parts = []
            for places, rows in read.families.values():
                if places is None:
                    parts.append(rows[start : start + WINDOW])
                else:
                    first, last = np.searchsorted(places, [start, start + WINDOW])
                    parts.append(rows[first:last])
            found, counts = np.unique(np.concatenate(parts), return_counts=True)
            kinds = np.unique(features.kinds_read(classes(text[start : start + WINDOW]))[1])
            columns += [found.astype(np.int32), (kinds + ROWS).astype(np.int32)]
            values += [
                (counts / np.sqrt(min(length, WINDOW) + features.CALM)).astype(np.float32),
                np.full(len(kinds), KIND, np.float32),
            ]
            ends.append(ends[-1] + len(found) + len(kinds))
            of.append(number)
    matrix = sp.csr_matrix(
        (np.concatenate(values), np.concatenate(columns), np.array(ends, np.int32)), shape=(len(of), ROWS + KINDS)
    )
    return Windows(matrix, np.array(of))
