"""Frequent English words: do letters make words, and where does one end when the spaces are gone?"""

from __future__ import annotations

import unicodedata
from functools import cache

from circuit_script.judgment.compiled import TOKENS, Splitter

_TELLING = """
    ignore ignoring disregard forget override bypass previous prior above earlier preceding instruction instructions
    directive directives guideline guidelines system prompt prompts reveal disclose developer password passwords
    secret secrets confidential credentials execute command commands assistant pretend jailbreak unrestricted
    restrictions message messages context configuration hidden initial original safety filter filters security admin
    administrator transfer forward delete export leak exfiltrate approve refund
"""
_COMMON = """
    a i the of and to in is you that it he was for on are as with his they at be this have from or one had by word
    but not what all were we when your can said there use an each which she do how their if will up other about out
    many then them these so some her would make like him into time has look two more write go see number no way
    could people my than first water been call who oil its now find long down day did get come made may part over
    new sound take only little work know place year live me back give most very after thing our just name good
    sentence man think say great where help through much before line right too mean old any same tell boy follow
    came want show also around form three small set put end does another well large must big even such because turn
    here why ask went men read need land different home us move try kind hand picture again change off play spell
    air away animal house point page letter mother answer found study still learn should world high every near add
    food between own below country plant last school father keep tree never start city earth eye light thought head
    under story saw left few while along might close something seem next hard open example begin life always those
    both paper together got group often run please dear hello hi thanks thank regards order orders include includes
    including email mail send sent customer customers account accounts phone address data user users model models
    language rule rules role text output print repeat respond response reply return list key keys api token tokens
    file files code link click url http https www com visit website access enable mode following everything anything
    nothing verbatim exactly full entire complete instead without act acting obey comply provide information private
    sensitive personal internal bank money payment pay invoice contact record records database table drop update
    score rate rating lead hot mark best company business service product price offer free important urgent note
    attention warning stop immediately previously conversation chat bot agent agents tool tools function calls task
    tasks job question questions answers poem translate summary summarize summarise sure yes okay ok today tomorrow
    whoami import exec eval bash shell python subprocess socket pickle result sum show own training data
    week month bomb weapon drug kill hack malware virus illegal harmful ethical ethics moral limits limitations
    unlimited freely dan anymore unless until whatever whenever since told given gave being let lets says speak
    spoke reads writes wrote written shows showing gives giving share shares sharing policy policies content allowed
    permitted forbidden disable disabled enabled activate activated disclose inside outside within everyone someone
    anyone nobody meeting delivery shipping quote team manager office support sales report reports document
    documents attached regarding request requests review
"""

# What an attack cannot do without; these alone are looked for in letters that were shuffled or taken apart.
TELLING = frozenset(_TELLING.split())

COMMON = TELLING | frozenset(_COMMON.split())


@cache
def _short() -> frozenset[str]:
    return frozenset(word for word in COMMON if len(word) == 1)


@cache
def _by_start() -> dict[str, tuple[int, ...]]:
    """How long the words are that begin with two letters."""
    found: dict[str, set[int]] = {}
    for word in COMMON:
        found.setdefault(word[:2], set()).add(len(word))
    return {start: tuple(sorted(sizes)) for start, sizes in found.items()}


def words_in(letters: str) -> str:
    """Letters without spaces as words, as far as frequent words go: "ignoreallprevious" is "ignore all previous". The
    fewest letters are left over, then the fewest words are taken; what is no word stays together."""
    return _words_in(letters) if (loop := _loop()) is None else loop.words_in(letters)


def bare(letters: str) -> str:
    """Letters without what is put on them, if these are ASCII."""
    return _bare(letters) if (loop := _loop()) is None else loop.bare(letters)


@cache
def _loop() -> Splitter | None:
    """The same in compiled loops, where there are some."""
    if TOKENS is None:
        return None
    loop: Splitter = TOKENS.Splitter(COMMON, _bare)
    return loop


def _bare(letters: str) -> str:
    parts = unicodedata.normalize("NFD", letters)
    if all(map(unicodedata.combining, [each for each in {*parts} if not each.isascii()])):
        return parts.encode("ascii", "ignore").decode()
    return letters


def _words_in(letters: str) -> str:
    size = len(letters)
    sizes, single = _by_start(), _short()
    stray = size + 1  # a letter left over costs more than all words together
    cost = [0, *([stray * stray] * size)]
    back = [0] * (size + 1)  # where the word begins that ends here; the place itself for a stray letter
    for start in range(size):
        here = cost[start]
        alone = here + (1 if letters[start] in single else stray)
        if alone < cost[start + 1]:
            cost[start + 1] = alone
            back[start + 1] = start if letters[start] in single else start + 1
        for length in sizes.get(letters[start : start + 2], ()):
            end = start + length
            if end <= size and here + 1 < cost[end] and letters[start:end] in COMMON:
                cost[end] = here + 1
                back[end] = start
    words: list[str] = []
    end = strays = size
    while end:
        if back[end] == end:
            end -= 1
            continue
        if strays > end:
            words.append(letters[end:strays])
        words.append(letters[back[end] : end])
        end = strays = back[end]
    if strays:
        words.append(letters[:strays])
    return " ".join(reversed(words))
