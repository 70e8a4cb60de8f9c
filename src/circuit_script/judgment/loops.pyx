# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The loops over every word and character of a text, compiled: classes of words, sequences of them, the sums of the
model's windows, and labels with a colon.

Each says bit for bit what `words`, `polyglot`, `model` and `mosaic` say without them, which is what this was written
from and what is used where there is no compiler. Texts come from strangers, so every access to an array is checked.

Arrays are kept from text to text. Who reads takes them and gives them back when he is done, so that they are nobody
else's meanwhile; after an error they are not given back, and others are made. Those of a long text are not kept.
"""

from libc.math cimport sqrt
from libc.string cimport memcmp

import numpy as np

ctypedef unsigned int u32
ctypedef unsigned long long u64

cdef extern from "Python.h":
    Py_UCS4* PyUnicode_AsUCS4(object text, Py_UCS4* chars, Py_ssize_t room, int ends) except NULL

cdef u32 GAP = 1  # as in `words`: the end of a sentence, two words
cdef Py_ssize_t ANCHOR = 4
cdef u32 CHAR = 0x1FFFFF  # what is a character, where its sort is noted besides
cdef u32 BLANK = 1 << 30
cdef u32 RUNNING = 1U << 31
cdef u64 START = 0xCBF29CE484222325ULL  # FNV-1a, on characters: http://www.isthe.com/chongo/tech/comp/fnv/
cdef u64 STEP = 0x100000001B3ULL


cdef class _Letters:
    """What a text of so many characters takes to be read as words."""

    cdef Py_ssize_t size
    cdef u32[::1] chars
    cdef int[::1] starts, lasts, found  # where words are, and what they are
    cdef int[::1] weights, run_starts, run_lasts, run_codes  # those that are not parted

    def __init__(self, Py_ssize_t size):
        self.size = size
        self.chars = np.zeros(size, np.uint32)
        self.starts, self.lasts, self.found = (np.zeros(2 * size + 2, np.int32) for _ in range(3))
        self.weights, self.run_starts, self.run_lasts, self.run_codes = (np.zeros(size, np.int32) for _ in range(4))


cdef class _Kinds:
    """What a row of so many codes takes."""

    cdef Py_ssize_t size
    cdef u64[::1] own, four
    cdef u64[:, ::1] after  # of each word the kinds of those behind it: as many as four times the row's number
    cdef int[::1] marked

    def __init__(self, Py_ssize_t size):
        self.size = size
        self.own, self.four = np.zeros(size, np.uint64), np.zeros(size, np.uint64)
        self.after = np.zeros((5, size), np.uint64)
        self.marked = np.zeros(size, np.int32)


cdef class _Sums:
    """What a text of so many characters takes, with at least as many as words, to be summed up."""

    cdef Py_ssize_t size
    cdef u32[::1] chars, words
    cdef int[::1] starts, sums, before, change, at, kinds  # sums and words before, of each place of a window
    cdef int[::1] seen  # of each row of kinds where it was met last, counted on from text to text
    cdef int begun  # where the text begins, as they are counted

    def __init__(self, Py_ssize_t size, Py_ssize_t rows):
        self.size = size
        self.chars, self.words = (np.zeros(size, np.uint32) for _ in range(2))
        self.starts, self.sums, self.before = (np.zeros(size + 1, np.int32) for _ in range(3))
        self.change = np.zeros(size + 2, np.int32)
        self.at, self.kinds = np.zeros(2 * size, np.int32), np.zeros(2 * size, np.int32)
        self.seen = np.full(rows, -1, np.int32)


cdef Py_ssize_t LEAST = 4096  # characters that there is room for
cdef Py_ssize_t KEPT = 1 << 17  # characters or words, more than which no room is kept for


cdef int _take(u32[::1] chars, str text) except -1:
    """The characters of a text as numbers."""
    if len(text) > chars.shape[0]:
        raise IndexError(len(text))
    if text:
        PyUnicode_AsUCS4(text, <Py_UCS4*>&chars[0], chars.shape[0], 0)
    return 0


cdef class Words:
    """`words.classes` and `words.places_of`."""

    cdef _Letters spare
    cdef u32[::1] spaced  # of each character of the first plane what stands for it, and of what sort that is
    cdef unsigned char[::1] begun  # whether a word of a script without spaces begins with it; the last is of all others
    cdef u32[::1] letters  # of all words that are known, one behind the other
    cdef u64 mask
    cdef int[::1] slots, begins, sizes, codes  # a slot has the number of a word and one, or 0
    cdef int[::1] single  # of each character of the first plane its number as a word, or -1
    cdef u64 head_mask
    cdef int[::1] head_slots, head_first, head_last  # prefixes that begin with the same characters
    cdef int[::1] prefix_begins, prefix_sizes, prefix_codes
    cdef int[::1] alone, phrase_first, phrase_last  # of each number of phrases
    cdef int[::1] phrase_begins, phrase_sizes, phrase_codes, phrase_words
    cdef u64 branch_mask
    cdef u64[::1] branches  # from a number of characters read and the next one to the number of all of them
    cdef int[::1] grown, grown_codes
    cdef int unit, chatbot

    def __init__(self, book, spaced, blanks, running, unit):
        sorts = np.array(blanks, np.uint32) * BLANK + np.array(running, np.uint32) * RUNNING
        self.spaced = np.array(spaced, np.uint32) | sorts[np.array(spaced)]
        self.unit = unit
        in_phrases = {word for each in book.phrases for second, rest in each.by_second.items()
                      for words, _ in rest for word in (second, *words)}
        words = {**book.forms, **{word: book.forms.get(word, 0) for word in in_phrases}}
        letters = []
        numbers = {word: nth for nth, word in enumerate(words)}
        self.chatbot = numbers["chatbot"]
        self.single = np.full(0x10000, -1, np.int32)
        for word, nth in numbers.items():
            if len(word) == 1 and ord(word) < 0x10000:
                self.single[ord(word)] = nth
        self._branched(book.running)
        begins, sizes = self._lettered(words, letters)
        self.begins, self.sizes = begins, sizes
        self.codes = np.fromiter(words.values(), np.int32, len(words))
        heads = [(prefix, code) for each in book.prefixes.values() for prefix, code in each]
        self.prefix_begins, self.prefix_sizes = self._lettered([prefix for prefix, _ in heads], letters)
        self.prefix_codes = np.array([code for _, code in heads], np.int32)
        lasts = np.cumsum([len(each) for each in book.prefixes.values()])
        self.head_last = lasts.astype(np.int32)
        self.head_first = (lasts - [len(each) for each in book.prefixes.values()]).astype(np.int32)
        self.letters = np.array(letters, np.uint32)
        self.slots, self.mask = self._slotted(begins, sizes)
        self.head_slots, self.head_mask = self._slotted(
            np.array([self.prefix_begins[first] for first in self.head_first], np.int32),
            np.full(len(lasts), ANCHOR, np.int32))
        flat = [[((second, *rest), code) for second, all_of in each.by_second.items() for rest, code in all_of]
                for each in book.phrases]
        phrases = [each for several in flat for each in several]
        last = np.cumsum([len(each) for each in flat])
        self.alone = np.array([each.alone for each in book.phrases], np.int32)
        self.phrase_last = last.astype(np.int32)
        self.phrase_first = (last - [len(each) for each in flat]).astype(np.int32)
        self.phrase_sizes = np.array([len(rest) for rest, _ in phrases], np.int32)
        self.phrase_begins = (np.cumsum(self.phrase_sizes) - self.phrase_sizes).astype(np.int32)
        self.phrase_codes = np.array([code for _, code in phrases], np.int32)
        self.phrase_words = np.array([numbers[word] for rest, _ in phrases for word in rest], np.int32)

    def _lettered(self, words, letters):
        """Where the characters of these words begin among all, and how many they are."""
        begins = []
        for each in words:
            begins.append(len(letters))
            letters.extend(map(ord, each))
        return np.array(begins, np.int32), np.array([len(each) for each in words], np.int32)

    def _slotted(self, int[::1] begins, int[::1] sizes):
        """A table of these words by their hashes, half full at most."""
        cdef Py_ssize_t nth
        cdef u64 mask = 1
        cdef u64 at
        while mask < 2 * <u64>begins.shape[0] + 2:
            mask *= 2
        slots = np.zeros(mask, np.int32)
        cdef int[::1] placed = slots
        mask -= 1
        for nth in range(begins.shape[0]):
            at = _hash(self.letters, begins[nth], begins[nth] + sizes[nth]) & mask
            while placed[at]:
                at = (at + 1) & mask
            placed[at] = <int>nth + 1
        return slots, mask

    def _branched(self, words):
        """What may follow what in words of scripts without spaces: a table of steps, from the first character on."""
        steps, codes, begun = {}, [0], np.zeros(0x10000, np.uint8)
        for word, code in words.items():
            node, begun[min(ord(word[0]), 0xFFFF)] = 0, 1
            for each in word:
                step = node << 21 | ord(each)
                if step not in steps:
                    steps[step] = len(codes)
                    codes.append(0)
                node = steps[step]
            codes[node] = code
        cdef u64 mask = 1, at
        while mask < 2 * <u64>len(steps) + 2:
            mask *= 2
        branches, grown = np.zeros(mask, np.uint64), np.zeros(mask, np.int32)
        for step, node in steps.items():
            at = _mixed(step) & (mask - 1)
            while grown[at]:
                at = (at + 1) & (mask - 1)
            branches[at], grown[at] = step, node
        self.branches, self.grown, self.branch_mask, self.begun = branches, grown, mask - 1, begun
        self.grown_codes = np.array(codes, np.int32)

    def classes(self, str plain):
        """The codes of the words of a text."""
        return self._read(plain, None)

    def places(self, str plain, wanted):
        """Where words stand that have these numbers in the row of codes."""
        return self._read(plain, [*wanted])

    cdef object _read(self, str plain, wanted):
        cdef Py_ssize_t size = len(plain)
        cdef _Letters room = self.spare
        self.spare = None
        if room is None or room.size < size:
            room = _Letters(max(2 * size, LEAST))
        _take(room.chars, plain)
        if not plain.isascii() and self._runs(room.chars, size):
            read = self._running(room, size, wanted)
        else:
            read = self._parted(room, size, wanted)
        if room.size <= KEPT:
            self.spare = room
        return read

    cdef bint _runs(self, u32[::1] chars, Py_ssize_t size) except -1:
        """Whether a text has a script without spaces."""
        cdef u32[::1] spaced = self.spaced
        cdef Py_ssize_t at
        for at in range(size):
            if chars[at] < 0x10000 and spaced[chars[at]] & RUNNING:
                return True
        return False

    cdef object _parted(self, _Letters room, Py_ssize_t size, wanted):
        """Of a text in which spaces part words."""
        cdef Py_ssize_t at, start = 0
        cdef int count = 0, nth
        cdef u32 char
        cdef u64 value = 0, head = 0
        cdef u32[::1] chars = room.chars, spaced = self.spaced
        cdef int[::1] starts = room.starts, lasts = room.lasts, found = room.found
        cdef bint inside = False, told_apart = wanted is None
        cdef Py_ssize_t upto = 2 * size if told_apart else max(wanted, default=-1)  # words that are read
        for at in range(size):
            char = chars[at]
            if char < 0x10000:
                char = spaced[char]
                if char == GAP or char & BLANK:
                    if inside:
                        lasts[count] = <int>at
                        if told_apart:
                            found[count] = self._met(room, start, at, value, head)
                        count += 1
                        inside = False
                        if count > upto:
                            break
                    if char == GAP:
                        starts[count] = lasts[count] = starts[count + 1] = lasts[count + 1] = 0
                        found[count] = found[count + 1] = -1
                        count += 2
                    continue
                chars[at] = char
            if not inside:
                starts[count] = <int>at
                start, value, inside = at, START, True
            value = (value ^ char) * STEP
            if at - start == ANCHOR - 1:
                head = value
        if inside:
            lasts[count] = <int>size
            if told_apart:
                found[count] = self._met(room, start, size, value, head)
            count += 1
        if not told_apart:
            return {each: (starts[<Py_ssize_t>each], lasts[<Py_ssize_t>each]) for each in wanted}
        codes = np.empty(count, np.int16)
        cdef short[::1] told = codes
        for nth in range(count):
            told[nth] = <short>(self._code(room, nth, count) if found[nth] >= 0 else -1 - found[nth])
        return codes

    cdef inline int _met(self, _Letters room, Py_ssize_t first, Py_ssize_t last, u64 value, u64 head) except? -32768:
        """The number of a word; if it has none, -1 less the code of what it begins with."""
        cdef int number
        if last - first == 1 and room.chars[first] < 0x10000:
            return self.single[room.chars[first]]
        number = self._numbered(room, first, last, value ^ (value >> 32))
        return number if number >= 0 else -1 - self._begun(room, first, last, head ^ (head >> 32))

    cdef object _running(self, _Letters room, Py_ssize_t size, wanted):
        """Where scripts have no spaces, their words are found from each place, the longest first; what stands between
        them counts by its length."""
        cdef Py_ssize_t at, step, done = 0, end = 0
        cdef int count = 0, runs = 0, code, nth
        cdef int total = 0, left = 0, unit = self.unit
        cdef u32 char
        cdef u32[::1] chars = room.chars
        cdef int[::1] weights = room.weights, starts = room.starts, lasts = room.lasts, found = room.found
        cdef int[::1] run_starts = room.run_starts, run_lasts = room.run_lasts, run_codes = room.run_codes
        cdef bint inside = False, letter
        for at in range(size):
            char = chars[at]
            if char < 0x10000:
                char = chars[at] = self.spaced[char] & CHAR
            weights[at] = (4 if 0x0E00 <= char <= 0x0E7F else 7 if 0xAC00 <= char <= 0xD7AF
                           else 8 if 0x3040 <= char <= 0x9FFF else 2 * self.unit if char == GAP else 0)
            letter = weights[at] == 0 and char != 0x20
            if letter and not inside:
                starts[count] = <int>at
            elif inside and not letter:
                lasts[count] = <int>at
                count += 1
            inside = letter
        if inside:
            lasts[count] = <int>size
            count += 1
        for at in range(size):
            if at < done:
                continue
            if not self.begun[min(chars[at], 0xFFFF)]:
                continue
            code = self._longest(room, at, size, &end)
            if code:
                run_starts[runs], run_lasts[runs], run_codes[runs] = <int>at, <int>end, code
                runs += 1
                for step in range(at, end):
                    weights[step] = 0
                weights[at] = self.unit
                done = end
        for nth in range(count):
            weights[starts[nth]] = self.unit
            if wanted is not None:
                continue
            if lasts[nth] - starts[nth] == 2 and chars[starts[nth]] == 0x61 and chars[starts[nth] + 1] == 0x69:
                found[nth] = self.chatbot  # alone, "ai" is a word of French and Italian, and no model
            else:
                found[nth] = self._number(room, starts[nth], lasts[nth])
        for at in range(size):
            left += weights[at]  # of a unit, of which twice as many are the most that a character has
            while left >= unit:
                left -= unit
                total += 1
            weights[at] = total
        if wanted is not None:
            return self._told(wanted, total, weights, starts, lasts, count, run_starts, run_lasts, runs)
        codes = np.zeros(total + 1 if size else 0, np.int16)
        cdef short[::1] told = codes
        for nth in range(count):
            told[weights[starts[nth]]] = <short>self._code(room, nth, count)
        for nth in range(runs):
            told[weights[run_starts[nth]]] = <short>run_codes[nth]
        return codes

    cdef dict _told(
        self, wanted, int total, int[::1] at, int[::1] starts, int[::1] lasts, int count,
        int[::1] run_starts, int[::1] run_lasts, int runs
    ):
        """Where the words stand that have these numbers, which are told by where they begin."""
        cdef dict placed = {}
        cdef Py_ssize_t nth
        cdef unsigned char[::1] sought = bytearray(total + 1)
        for each in wanted:
            sought[<Py_ssize_t>each] = 1
        for nth in range(count):
            if sought[at[starts[nth]]]:
                placed[at[starts[nth]]] = starts[nth], lasts[nth]
        for nth in range(runs):
            if sought[at[run_starts[nth]]]:
                placed[at[run_starts[nth]]] = run_starts[nth], run_lasts[nth]
        return {each: placed[each] for each in wanted}

    cdef int _longest(self, _Letters room, Py_ssize_t first, Py_ssize_t size, Py_ssize_t* end) except -1:
        """The code of the longest word that begins at a place, and where it ends; 0 for none."""
        cdef Py_ssize_t at
        cdef int node = 0, code = 0
        cdef u64 slot, step
        for at in range(first, size):
            step = <u64>node << 21 | room.chars[at]
            slot = _mixed(step) & self.branch_mask
            while self.grown[slot] and self.branches[slot] != step:
                slot = (slot + 1) & self.branch_mask
            node = self.grown[slot]
            if not node:
                break
            if self.grown_codes[node]:
                code = self.grown_codes[node]
                end[0] = at + 1
        return code

    cdef int _number(self, _Letters room, Py_ssize_t first, Py_ssize_t last) except -2:
        """The number of a word, or -1."""
        if last - first == 1 and room.chars[first] < 0x10000:
            return self.single[room.chars[first]]
        return self._numbered(room, first, last, _hash(room.chars, first, last)) if first < last else -1

    cdef int _numbered(self, _Letters room, Py_ssize_t first, Py_ssize_t last, u64 at) except -2:
        """The same, with its hash."""
        cdef int nth
        at &= self.mask
        while self.slots[at]:
            nth = self.slots[at] - 1
            if self.sizes[nth] == last - first and self._same(room, first, self.begins[nth], self.sizes[nth]):
                return nth
            at = (at + 1) & self.mask
        return -1

    cdef bint _same(self, _Letters room, Py_ssize_t first, Py_ssize_t begin, Py_ssize_t size) except -1:
        if size > room.size - first or size > self.letters.shape[0] - begin:
            raise IndexError(first, begin)
        return memcmp(&room.chars[first], &self.letters[begin], size * sizeof(u32)) == 0

    cdef inline int _code(self, _Letters room, int nth, int count) except? -32768:
        """The code of a word, in the light of those behind it."""
        cdef int code = self.codes[room.found[nth]] if room.found[nth] >= 0 else 0
        if code == 0 and room.lasts[nth] - room.starts[nth] >= ANCHOR:
            return self._prefix(room, room.starts[nth], room.lasts[nth])
        return code if code >= 0 else self._phrase(room, nth, count, -1 - code)

    cdef int _phrase(self, _Letters room, int nth, int count, int code) except? -32768:
        """The same of a word that phrases begin with."""
        cdef int phrase, at, size, begin
        for phrase in range(self.phrase_first[code], self.phrase_last[code]):
            size, begin = self.phrase_sizes[phrase], self.phrase_begins[phrase]
            if nth + size < count:
                for at in range(size):
                    if room.found[nth + 1 + at] != self.phrase_words[begin + at]:
                        break
                else:
                    return self.phrase_codes[phrase]
        return self.alone[code]

    cdef int _prefix(self, _Letters room, Py_ssize_t first, Py_ssize_t last) except -1:
        """The code of the longest prefix that a word has."""
        return self._begun(room, first, last, _hash(room.chars, first, first + ANCHOR)) if last - first >= ANCHOR else 0

    cdef int _begun(self, _Letters room, Py_ssize_t first, Py_ssize_t last, u64 at) except -1:
        """The same, with the hash of its first characters."""
        cdef int head, nth
        if last - first < ANCHOR:
            return 0
        at &= self.head_mask
        while self.head_slots[at]:
            head = self.head_slots[at] - 1
            if self._same(room, first, self.prefix_begins[self.head_first[head]], ANCHOR):
                for nth in range(self.head_first[head], self.head_last[head]):
                    if self.prefix_sizes[nth] <= last - first and self._same(
                        room, first, self.prefix_begins[nth], self.prefix_sizes[nth]
                    ):
                        return self.prefix_codes[nth]
                return 0
            at = (at + 1) & self.head_mask
        return 0


cdef inline u64 _mixed(u64 value) noexcept:
    """Neighbours far apart, by the multiplicative hashing of Knuth's third volume."""
    return value * 0x9E3779B97F4A7C15ULL >> 40


cdef u64 _hash(u32[::1] chars, Py_ssize_t first, Py_ssize_t last) except? 0:
    cdef u64 value = START
    cdef Py_ssize_t at
    for at in range(first, last):
        value = (value ^ chars[at]) * STEP
    return value ^ (value >> 32)


def turns(str text not None, Py_ssize_t most, more_letters):
    """`mosaic._turns`: the first labels with a colon, each with its first character and the one behind the colon."""
    cdef list found = []
    cdef Py_ssize_t at = -1, first, end, digits
    cdef Py_UCS4 char
    for char in text:
        at += 1
        if char != u":" and char != u"\uff1a":
            continue
        end = at
        if end and text[end - 1] == u" ":
            end -= 1
        digits = 0
        while end and digits < 3 and u"0" <= text[end - 1] <= u"9":
            end -= 1
            digits += 1
        if end and text[end - 1] == u" ":
            end -= 1
        first = end
        while first and end - first <= 10 and _is_lettered(text[first - 1]):
            first -= 1
        if not 0 < end - first <= 10 or first and text[first - 1] not in u" \t\n\f\r\"'>":
            continue
        if _is_word(text, first, end, more_letters):
            found.append((text[first:end].lower(), first, at + 1))
            if len(found) >= most:
                break
    return found


cdef bint _is_word(str text, Py_ssize_t first, Py_ssize_t end, more_letters) except -1:
    """`mosaic._is_word`, or letters to Python."""
    cdef Py_UCS4 char
    cdef Py_ssize_t at
    for at in range(first, end):
        char = text[at]
        if not char.isalpha() and text[at] not in more_letters(<Py_ssize_t>char >> 8):
            return False
    return True


cdef inline bint _is_lettered(Py_UCS4 char) noexcept:
    return u"a" <= char <= u"z" or u"A" <= char <= u"Z" or char >= 128 and char != 0xFF1A


cdef class Sequences:
    """`polyglot.matches`: where kinds of words stand together as a rule says."""

    cdef u64[::1] masks  # of each code its kinds
    cdef u64[:, ::1] items
    cdef int[::1] counts, windows
    cdef u64[::1] firsts, unless
    cdef unsigned char[::1] ordered
    cdef _Kinds spare

    def __init__(self, masks, rules):
        self.masks = np.ascontiguousarray(masks, np.uint64)
        items = np.zeros((len(rules), 4), np.uint64)
        for nth, each in enumerate(rules):
            items[nth, : len(each.items)] = each.items
        self.items = items
        self.counts = np.array([len(each.items) for each in rules], np.int32)
        self.windows = np.array([each.window for each in rules], np.int32)
        self.firsts = np.array([each.first for each in rules], np.uint64)
        self.unless = np.array([each.unless for each in rules], np.uint64)
        self.ordered = np.array([each.ordered for each in rules], np.uint8)
        if any(each.window not in (4, 8, 12, 16) for each in rules):
            raise ValueError("a window has 4, 8, 12 or 16 words")

    def matches(self, const short[:] codes, Py_ssize_t most):
        """Of each place the number of its rule, the first and the last word; of each rule so many at most."""
        cdef _Kinds room = self.spare
        self.spare = None
        if room is None or room.size < codes.shape[0]:
            room = _Kinds(max(2 * codes.shape[0], LEAST))
        found = self._matches(room, codes, most)
        if room.size <= KEPT:
            self.spare = room
        return found

    cdef list _matches(self, _Kinds room, const short[:] codes, Py_ssize_t most):
        cdef Py_ssize_t size = codes.shape[0], at, last, done, told, rule, marks = 0, mark, row
        cdef u64 there = 0, kinds
        cdef int count, each
        cdef u64[::1] own = room.own
        cdef u64[:, ::1] after = room.after
        cdef int[::1] marked = room.marked
        for at in range(size):
            own[at] = kinds = self.masks[codes[at]]
            if kinds:
                there |= kinds
                marked[marks] = <int>at
                marks += 1
        found = []
        if not there:
            return found
        self._look_ahead(room, size)
        for rule in range(self.counts.shape[0]):
            count = self.counts[rule]
            for each in range(count):
                if not there & self.items[rule, each]:
                    break
            else:
                row = self.windows[rule] // 4
                done, told = -1, 0
                for mark in range(marks):
                    at = marked[mark]
                    if at <= done or not own[at] & self.firsts[rule] or not self._begins(rule, count, own[at], after[row, at]):
                        continue
                    kinds = 0
                    for last in range(at, min(at + self.windows[rule] + 1, size)):
                        kinds |= own[last]
                        if self._all(rule, count, kinds):
                            break
                    done = last
                    if self.unless[rule] and self._any(own, max(at - 2, 0), min(last + 4, size), self.unless[rule]):
                        continue
                    found.append((rule, at, last))
                    told += 1
                    if told == most:
                        break
        return found

    cdef int _look_ahead(self, _Kinds room, Py_ssize_t size) except -1:
        cdef u64[::1] own = room.own, four = room.four
        cdef u64[:, ::1] after = room.after
        cdef Py_ssize_t at, row
        cdef u64 second = 0, third = 0, fourth = 0
        for at in range(size - 1, -1, -1):
            four[at] = own[at] | second | third | fourth
            second, third, fourth = own[at], second, third
        for at in range(size):
            after[1, at] = four[at + 1] if at + 1 < size else 0
        for row in range(2, 5):
            for at in range(size):
                after[row, at] = after[row - 1, at] | (four[at + 4 * row - 3] if at + 4 * row - 3 < size else 0)
        return 0

    cdef bint _begins(self, Py_ssize_t rule, int count, u64 own, u64 after) except -1:
        """Whether a word has one of the kinds, the first if they are ordered, and is followed by the others."""
        cdef int number, other
        for number in range(1 if self.ordered[rule] else count):
            if own & self.items[rule, number]:
                for other in range(count):
                    if other != number and not after & self.items[rule, other]:
                        break
                else:
                    return True
        return False

    cdef bint _all(self, Py_ssize_t rule, int count, u64 kinds) except -1:
        cdef int each
        for each in range(count):
            if not kinds & self.items[rule, each]:
                return False
        return True

    cdef bint _any(self, u64[::1] own, Py_ssize_t first, Py_ssize_t last, u64 kinds) except -1:
        cdef Py_ssize_t at
        for at in range(first, last):
            if own[at] & kinds:
                return True
        return False


cdef class Windows:
    """`model.Model.logits` of one text: the highest of its windows."""

    cdef _Sums spare
    cdef unsigned char[::1] table
    cdef signed char[::1] worth
    cdef int[::1] kind
    cdef double text_unit, kind_unit, bias, calm
    cdef u32[::1] powers
    cdef u32 prime, mix, step, of_word, of_pair, of_skip, of_five
    cdef int shift, window, stride, tokens, near, close

    def __init__(self, model, features, stride, tokens):
        self.table = np.array(model.table, np.uint8)
        self.worth = np.array(model.text, np.int8)
        self.kind = np.array(model.kind, np.int32)
        self.text_unit, self.kind_unit = model.units
        self.bias, self.calm = model.bias, features.CALM
        self.powers = np.array(features._POWERS, np.uint32)
        self.prime, self.mix, self.step = int(features._PRIME), int(features._MIX), int(features._STEP)
        self.of_word, self.of_pair, self.of_skip, self.of_five = (
            int(features._FAMILIES[each]) for each in ("word", "pair", "skip", "five"))
        self.shift, self.window = int(features._SHIFT), features.WINDOW
        self.near, self.close = features.NEAR, features.CLOSE
        self.stride, self.tokens = stride, tokens
        if stride & (stride - 1) or self.window % stride:
            raise ValueError("windows begin at powers of two, and end where others begin")

    def highest(self, str plain, const short[:] codes):
        """What the highest window of a text sums up to, where ``codes`` are the classes of its words."""
        cdef Py_ssize_t size = len(plain), most = max(size, codes.shape[0])
        cdef _Sums room = self.spare
        cdef double best
        self.spare = None
        if room is None or room.size < most:
            room = _Sums(max(2 * most, LEAST), self.kind.shape[0])
        _take(room.chars, plain)
        best = self._highest(room, size, codes)
        if room.size <= KEPT:
            self.spare = room
        return best

    cdef double _highest(self, _Sums room, Py_ssize_t size, const short[:] codes) except? -1:
        cdef Py_ssize_t numbers = codes.shape[0], nth, behind, rooms, whole, ends
        cdef int[::1] sums = room.sums, before = room.before, change = room.change
        cdef double unit, logit, best = 0
        self._weigh(room, size)
        rooms = 1 if size <= self.window else max(numbers - self.tokens + 1, 1)
        self._weigh_kinds(room, codes, rooms)
        unit = self.text_unit / sqrt(min(size, self.window) + self.calm)
        ends = (size + self.stride - 1) // self.stride
        whole = max(before[ends], 1)
        for nth in range(max((size - self.window + 2 * self.stride - 1) // self.stride, 1)):
            behind = min(before[nth] * (rooms + self.tokens - 1) // whole, rooms - 1)
            logit = (sums[min(nth + self.window // self.stride, ends)] - sums[nth]) * unit + change[behind] * self.kind_unit + self.bias
            if nth == 0 or logit > best:
                best = logit
        return best

    cdef int _weigh(self, _Sums room, Py_ssize_t size) except -1:
        """Of each place where a window may begin, and of the end, the sum of what begins before it, and how many words
        do."""
        cdef u32[::1] chars = room.chars, words = room.words
        cdef int[::1] starts = room.starts, sums = room.sums, before = room.before
        cdef unsigned char[::1] table = self.table
        cdef signed char[::1] worth = self.worth
        cdef u32[::1] powers = self.powers
        cdef u32 char, word = 0, mix = self.mix, prime = self.prime, step = self.step
        cdef u32 of_word = self.of_word, of_pair = self.of_pair, of_skip = self.of_skip
        cdef unsigned char kind, previous = 0
        cdef Py_ssize_t at, count = 0, start = 0, limit = powers.shape[0] - 1, stride = self.stride, nth = 0, upto
        cdef Py_ssize_t last = (size + stride - 1) // stride
        cdef int stops = 0, shift = self.shift, total = 0
        self._weigh_fives(room, size)
        for nth in range(last):
            before[nth] = stops + <int>count
            upto = min((nth + 1) * stride, size)
            for at in range(nth * stride, upto):
                char = chars[at]
                kind = table[char if char < 0xFFFF else 0xFFFF]
                if kind:
                    if previous == 0 or kind == 2 or previous == 2:
                        if count:
                            words[count - 1] = (word ^ (word >> 15)) * mix
                        starts[count] = <int>nth
                        count += 1
                        word, start = 0, at
                    if at - start < limit:
                        word += powers[at - start] * (char + prime)
                if char < 0x40 and (char == 0x2E or char == 0x21 or char == 0x3F):
                    stops += 2
                previous = kind
        before[last] = stops + <int>count
        if count:
            words[count - 1] = (word ^ (word >> 15)) * mix
        for at in range(count):
            word = words[at]
            total = worth[word * of_word >> shift]
            if at + 1 < count:
                total += worth[(word * step + words[at + 1]) * of_pair >> shift]
            if at + 2 < count:
                total += worth[(word * step + words[at + 2]) * of_skip >> shift]
            sums[starts[at] + 1] += total
        total = 0
        for nth in range(1, last + 1):
            total += sums[nth]
            sums[nth] = total
        return 0

    cdef int _weigh_fives(self, _Sums room, Py_ssize_t size) except -1:
        """Of each step from one window to the next the sum of the pieces of five characters that begin there."""
        cdef u32[::1] chars = room.chars
        cdef int[::1] sums = room.sums
        cdef signed char[::1] worth = self.worth
        cdef u32 char, mix = self.mix, prime = self.prime, of_five = self.of_five, five = 0
        cdef u32 first = 0, second = 0, third = 0, fourth = 0, fifth = 0  # the last five characters
        cdef u32 leaves = prime * prime * prime * prime
        cdef Py_ssize_t at, nth, stride = self.stride
        cdef int total, shift = self.shift
        for at in range(size):
            if 0x30 <= chars[at] <= 0x39:
                chars[at] = 0x30
        for at in range(min(4, size)):
            first, second, third, fourth, fifth = second, third, fourth, fifth, chars[at] * mix
            five = five * prime + fifth
        sums[0] = 0
        for nth in range((size + stride - 1) // stride):
            total = 0
            for at in range(nth * stride + 4, min((nth + 1) * stride + 4, size)):
                five -= first * leaves
                first, second, third, fourth, fifth = second, third, fourth, fifth, chars[at] * mix
                five = five * prime + fifth
                total += worth[five * of_five >> shift]
            sums[nth + 1] = total
        return 0

    cdef int _weigh_kinds(self, _Sums room, const short[:] codes, Py_ssize_t rooms) except -1:
        """Of each word where a window can begin the weights of the classes from there on, each counted once."""
        cdef int[::1] change = room.change, at = room.at, kinds = room.kinds
        cdef Py_ssize_t nth, count = 0, numbers = codes.shape[0], step
        cdef int code, kind, second, away, row
        for nth in range(rooms + 1):
            change[nth] = 0
        for nth in range(numbers):
            code = codes[nth]
            if code:
                at[count], kinds[count] = <int>nth, code & 63
                count += 1
                if code >> 6:
                    at[count], kinds[count] = <int>nth, code >> 6
                    count += 1
        for nth in range(count):
            kind = kinds[nth]
            self._count(room, kind, at[nth], rooms)
            for step in range(1, min(7, count - nth)):
                second, away = kinds[nth + step], at[nth + step] - at[nth]
                if away > self.near:
                    break
                if step < 6 and away <= self.close:
                    self._count(room, (kind << 6) + second + (64 if step == 1 else 64 + 4096), at[nth], rooms)
                row = (min(kind, second) << 6) + max(kind, second) + 64 + 2 * 4096
                self._count(room, row, at[nth], rooms)
        room.begun += <int>numbers  # so that nothing counts as seen in the next text
        if room.begun > 1 << 30:
            room.begun, room.seen[:] = 0, -1
        for nth in range(1, rooms):
            change[nth] += change[nth - 1]
        return 0

    cdef inline int _count(self, _Sums room, int row, int place, Py_ssize_t rooms) except -1:
        cdef Py_ssize_t since = 0, until = min(place + 1, rooms)
        if rooms > 1:
            since = max(place - self.tokens + 1, 0)
        since = max(since, room.seen[row] - room.begun + 1)
        room.seen[row] = room.begun + place
        if since < until:
            room.change[since] += self.kind[row]
            room.change[until] -= self.kind[row]
        return 0
