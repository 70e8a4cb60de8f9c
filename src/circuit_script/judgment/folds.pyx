# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The steps from a text to its canonical form, compiled.

They say bit for bit what `canon._Folding` says with numpy, which is what this was written from and what is used where
there is no compiler. Texts come from strangers, so every access to an array is checked, and no step takes longer than
its text is long. How arrays are kept from text to text: see `loops`.
"""

cimport cython

import unicodedata

import numpy as np

cdef extern from "Python.h":
    void* PyUnicode_AsUCS4(object text, void* chars, Py_ssize_t size, int ended) except NULL
    object PyUnicode_FromKindAndData(int kind, const void* chars, Py_ssize_t size)

ctypedef unsigned short u16
ctypedef unsigned int u32
ctypedef unsigned long long u64

cdef enum:  # as in `glyphs`
    SIZE = 0x20000
    LIMIT = 0x110000

cdef enum:
    INVISIBLE = 1
    BIDI = 2
    TAG = 3
    VARIATION = 4
    CONTROL = 5
    RUBOUT = 6
    MARK = 7
    FLAG = 9

cdef enum:
    HIDDEN = 1 << 0
    MARKED = 1 << 1
    COMBINES = 1 << 2
    FLAGGED = 1 << 3
    FOREIGN = 1 << 4
    LETTER = 1 << 5
    CHANGES = 1 << 6
    ACCENT = 1 << 7
    WIDE = 1 << 9

cdef enum:
    LATIN = 1
    CYRILLIC = 2

cdef enum:  # what is known of a character, in one number: its kind, and from these bits on
    SCRIPT = 4
    WORD = 1 << 8
    ALIKE = 1 << 9
    OWN = 1 << 10  # no Russian letter is like it
    CASED = 1 << 11
    LOWER = 1 << 12
    NEEDS = 13

cdef enum:  # how characters are composed: the class of a mark, and whether a character may become one with another
    CLASS = 0xFF
    JOINS = 0x100  # with what is before it, or by itself
    APART = 0x200  # can be taken apart
    DEEP = 0x2FA20  # beyond, nothing is composed

cdef enum:  # of Korean, and how many there are
    LEADING = 0x1100
    VOWEL = 0x1161
    TRAILING = 0x11A7
    SYLLABLE = 0xAC00
    LEADINGS = 19
    VOWELS = 21
    TRAILINGS = 28
    SYLLABLES = 11172

cdef enum:
    PARTS = 4  # of one character at most
    MOST_BARE = 2  # letters that one with an accent stands for, at most
    SHORT = 16  # marks that are sorted one by one
    LEAST = 4096  # characters that there is room for
    KEPT = 1 << 17  # characters, more than which no room is kept for


cdef class _Room:
    """What a text takes to be folded: its characters, and the place of each in the text."""

    cdef u32[::1] chars, other, parts, sorted
    cdef int[::1] at, other_at
    cdef int[::1] classes
    cdef long long[::1] counts  # of what was hidden, by kind
    cdef long long wide, combining, flags, twins
    cdef Py_ssize_t first, last
    cdef int scripts, strange, own  # of a word: letters of others that no Latin one is like, and the other way round
    cdef bint moved

    def __init__(self, Py_ssize_t size):
        self.chars, self.other = np.zeros(size, np.uint32), np.zeros(size, np.uint32)
        self.at, self.other_at = np.zeros(size, np.int32), np.zeros(size, np.int32)
        self.parts, self.sorted = np.zeros(LEAST, np.uint32), np.zeros(LEAST, np.uint32)
        self.classes = np.zeros(257, np.int32)
        self.counts = np.zeros(16, np.int64)

    cdef int begin(self, Py_ssize_t size) except -1:
        self.wide = self.combining = self.flags = self.twins = 0
        self.first, self.last, self.moved = size, 0, False
        self.counts[:] = 0
        return 0

    cdef int fit(self, Py_ssize_t size) except -1:
        """Makes the other arrays large enough."""
        if self.other.shape[0] < size:
            self.other, self.other_at = np.zeros(2 * size, np.uint32), np.zeros(2 * size, np.int32)
        return 0

    cdef int grow(self, Py_ssize_t made, Py_ssize_t size) except -1:
        """Makes them large enough where so many characters are made already."""
        cdef u32[::1] other = self.other
        cdef int[::1] at = self.other_at
        self.fit(size)
        self.other[:made], self.other_at[:made] = other[:made], at[:made]
        return 0

    cdef void swap(self) noexcept:
        self.chars, self.other = self.other, self.chars
        self.at, self.other_at = self.other_at, self.at

    cdef void note(self, Py_ssize_t place) noexcept:
        if place < self.first:
            self.first = place
        if place >= self.last:
            self.last = place + 1

    cdef Py_ssize_t most(self):
        return max(self.chars.shape[0], self.other.shape[0], self.parts.shape[0])


cdef class Folded:
    """A text in canonical form, as `canon._Folding`."""

    cdef readonly str plain, wide
    cdef readonly int needs
    cdef readonly dict hidden
    cdef readonly tuple hidden_span
    cdef Py_ssize_t size
    cdef int[::1] at, low  # of what is wide its places, None if nothing has moved; and of what is plain those in that

    def wide_places(self):
        cdef Places places = Places.__new__(Places)
        places.size, places.end, places.at, places.low = len(self.wide), self.size, self.at, None
        return places

    def plain_places(self):
        cdef Places places = Places.__new__(Places)
        places.size, places.end, places.at, places.low = len(self.plain), self.size, self.at, self.low
        return places


@cython.final
cdef class Places:
    """Of each character of a form its place in the text, and one more for the end; each is told where it is asked
    for."""

    cdef Py_ssize_t size, end
    cdef int[::1] at, low

    def __len__(self):
        return self.size + 1

    def __getitem__(self, Py_ssize_t at):
        if not 0 <= at <= self.size:
            raise IndexError(at)
        if at == self.size:
            return self.end
        if self.low is not None:
            at = self.low[at]
        return at if self.at is None else self.at[at]

    def __iter__(self):
        return map(self.__getitem__, range(self.size + 1))


cdef class Folds:
    """`canon._Folding`, made of the tables of `glyphs`, and of the letters of a Russian word by their Latin twins."""

    cdef _Room spare
    cdef u32[::1] facts, cased, lower, near, bare, letters
    cdef long long[::1] starts, lengths
    cdef Py_ssize_t longest
    cdef u32[::1] back
    cdef u16[::1] order, apart
    cdef u32[::1] taken  # all characters that others are made of
    cdef int[::1] taken_starts
    cdef u64 mask
    cdef u64[::1] pairs  # two characters that are composed, in slots by their hash
    cdef u32[::1] composed

    def __init__(self, table, back):
        every = np.arange(SIZE, dtype=np.uint32)
        own = np.ones(SIZE, np.bool_)
        own[list(back)] = False
        facts = table.kind.astype(np.uint32) | table.script.astype(np.uint32) << SCRIPT
        facts |= table.needs.astype(np.uint32) << NEEDS
        for said, bit in ((table.word, WORD), (table.alike > 0, ALIKE), (own, OWN), (table.cased != every, CASED),
                          (table.lower != every, LOWER)):
            facts[said] |= np.uint32(bit)
        self.facts, self.cased, self.lower, self.near = facts, table.cased.copy(), table.lower.copy(), table.near.copy()
        self.bare = table.bare.copy()
        self.letters, self.starts, self.lengths = table.letters.copy(), table.starts.copy(), table.lengths.copy()
        self.longest = max(table.lengths)
        latin = np.arange(128, dtype=np.uint32)
        latin[list(back)] = list(back.values())
        self.back = latin
        self._compositions()

    def _compositions(self):
        """Which characters are composed of which, as Unicode says."""
        order, apart, taken, starts, pairs = np.zeros(DEEP, np.uint16), np.zeros(DEEP, np.uint16), [], [0, 0], {}
        for code in (*range(0xC0, SIZE), *range(0x2F800, DEEP)):
            char = chr(code)
            order[code] |= unicodedata.combining(char)
            known = unicodedata.decomposition(char)
            if not known or known[0] == "<":
                continue
            taken.extend(map(ord, unicodedata.normalize("NFD", char)))
            apart[code] = len(starts) - 1
            order[code] |= APART
            starts.append(len(taken))
            if not unicodedata.is_normalized("NFC", char):
                order[code] |= JOINS
            else:
                first, second = (int(each, 16) for each in known.split())
                order[second] |= JOINS
                pairs[first << 32 | second] = code
        order[VOWEL : VOWEL + VOWELS] |= JOINS
        order[TRAILING + 1 : TRAILING + TRAILINGS] |= JOINS
        order[SYLLABLE : SYLLABLE + SYLLABLES] |= APART
        self.order, self.apart = order, apart
        self.taken, self.taken_starts = np.array(taken, np.uint32), np.array(starts, np.int32)
        cdef u64 mask = 1, at
        while mask < 4 * <u64>len(pairs) + 2:
            mask *= 2
        slots, composed = np.zeros(mask, np.uint64), np.zeros(mask, np.uint32)
        for pair, code in pairs.items():
            at = _mixed(pair) & (mask - 1)
            while slots[at]:
                at = (at + 1) & (mask - 1)
            slots[at], composed[at] = pair, code
        self.pairs, self.composed, self.mask = slots, composed, mask - 1

    def fold(self, text):
        """A text in canonical form."""
        cdef Py_ssize_t size = _size(text), left
        cdef _Room room = self._taken(size)
        cdef Folded folded = Folded.__new__(Folded)
        room.begin(size)
        left = self._all(room, text, size, &folded.needs)
        folded.size = size
        folded.wide = _text(room.chars, left)
        folded.at = np.array(room.at[:left]) if room.moved else None
        left = self._lowered(room, left)
        folded.plain = _text(room.other, left)
        folded.low = np.array(room.other_at[:left])
        folded.hidden = _told(room)
        if room.last:
            folded.hidden_span = (room.first, room.last)
        else:
            folded.hidden_span = (0, 0)
        self._given_back(room)
        return folded

    def unaccented(self, str plain):
        """A plain form without accents, how many characters had one, and how many are Latin letters."""
        cdef Py_ssize_t size = len(plain), place, made = 0, part, accents = 0, latin = 0
        cdef u32 char, fact
        cdef _Room room = self._taken(size)
        self._read(room, plain, size)
        room.fit(MOST_BARE * size)
        cdef u32[::1] chars = room.chars, other = room.other, facts = self.facts, letters = self.letters
        for place in range(size):
            char = chars[place]
            if char < SIZE:
                fact = facts[char]
                latin += fact >> SCRIPT & 15 == LATIN
                if fact >> NEEDS & ACCENT:
                    accents += 1
                    char = self.bare[char]
            if char < LIMIT:
                other[made] = char
                made += 1
                continue
            for part in range(self.starts[char - LIMIT], self.starts[char - LIMIT] + self.lengths[char - LIMIT]):
                other[made] = letters[part]
                made += 1
        bare = _text(other, made)
        self._given_back(room)
        return bare, accents, latin

    def words_beyond(self, str plain):
        """The words of a plain form that have letters beyond ASCII."""
        cdef list found = []
        cdef Py_ssize_t first = 0, place = 0
        cdef bint beyond = False
        cdef Py_UCS4 char
        for char in plain:
            if char == 32:
                if beyond:
                    found.append(plain[first:place])
                first, beyond = place + 1, False
            elif char >= 128:
                beyond = True
            place += 1
        if beyond:
            found.append(plain[first:place])
        return found

    def marked(self, const u32[::1] codes not None, const unsigned char[::1] table not None, int bits):
        """The places of characters of which a table says one of these bits; beyond its end it says what it says last."""
        cdef Py_ssize_t size = codes.shape[0], last = table.shape[0] - 1, place, count = 0
        cdef u32 char
        found = np.empty(LEAST, np.int64)
        cdef long long[::1] places = found
        for place in range(size):
            char = codes[place]
            if table[char if char < last else last] & bits:
                if count == places.shape[0]:
                    found = np.concatenate([found, np.empty(size, np.int64)])
                    places = found
                places[count] = place
                count += 1
        return found[:count].copy()

    def composition(self, text):
        """A text as ``unicodedata.normalize("NFC", text)`` says."""
        cdef Py_ssize_t size = _size(text), made
        cdef _Room room = self._taken(size)
        self._read(room, text, size)
        made = self._normal(room, 0, size)
        found = text if made < 0 else _text(room.parts, made)
        self._given_back(room)
        return found

    cdef _Room _taken(self, Py_ssize_t size):
        cdef _Room room = self.spare
        self.spare = None
        return _Room(max(2 * size, LEAST)) if room is None or room.chars.shape[0] < size else room

    cdef void _given_back(self, _Room room):
        if room.most() <= KEPT:
            self.spare = room

    cdef int _read(self, _Room room, text, Py_ssize_t size) except -1:
        cdef Py_ssize_t place
        cdef u32[::1] chars = room.chars
        cdef int[::1] at = room.at
        if size:
            PyUnicode_AsUCS4(text, &chars[0], chars.shape[0], 0)
        for place in range(size):
            at[place] = <int>place
        return 0

    cdef Py_ssize_t _all(self, _Room room, text, Py_ssize_t size, int* needed) except -1:
        """All steps, as `canon._Folding` takes them; how many characters are left."""
        cdef Py_ssize_t place, grown = size
        cdef u32 char, fact, needs = 0
        cdef u32[::1] chars = room.chars, facts = self.facts
        cdef bint high = False
        self._read(room, text, size)
        for place in range(size):
            char = chars[place]
            if char >= SIZE:
                high = True
                continue
            fact = facts[char]
            needs |= fact >> NEEDS
            if fact & CASED and self.cased[char] >= LIMIT:
                grown += <Py_ssize_t>self.lengths[self.cased[char] - LIMIT]
        needed[0] = <int>needs
        if high or needs & HIDDEN:
            size = self._seen(room, size)
        if needs & CHANGES:
            room.fit(grown)
            size = self._compatible(room, size)
        if needs & MARKED:
            size = self._marks(room, size)
        if needs & COMBINES:
            size = self._compose(room, size)
        if needs & FLAGGED:
            self._flags(room, size)
        if needs & FOREIGN and needs & LETTER:
            self._twins(room, size)
        return size

    cdef Py_ssize_t _seen(self, _Room room, Py_ssize_t size) except -1:
        """What can be seen; a backspace takes the character before it with it."""
        cdef Py_ssize_t place, kept = 0, flagged = -1
        cdef u32 char, before = 0, after
        cdef int kind
        cdef u32[::1] chars = room.chars, facts = self.facts
        cdef int[::1] at = room.at
        for place in range(size):
            char = chars[place]
            if char < SIZE:
                kind = facts[char] & 15
                if char == 0x1F3F4:
                    flagged = max(flagged, _end_of_flag(chars, place, size))
            else:
                kind = TAG if 0xE0000 <= char < 0xE0080 else VARIATION if 0xE0100 <= char < 0xE01F0 else 0
            if kind == 0 or kind == MARK or kind == FLAG:
                chars[kept], at[kept] = char, <int>place
                kept += 1
            else:
                after = chars[place + 1] if place + 1 < size else 0
                if place > flagged and not (place == 0 and char == 0xFEFF) and not _usual(char, before, after):
                    room.counts[kind] += 1
                    if kind <= RUBOUT:
                        room.note(place)
                if kind == RUBOUT and kept:
                    kept -= 1
            before = char
        room.moved = room.moved or kept < size
        return kept

    cdef Py_ssize_t _compatible(self, _Room room, Py_ssize_t size) except -1:
        """Characters in their compatible forms."""
        cdef Py_ssize_t place, made = 0, start, end
        cdef u32 char, fact
        cdef u32[::1] chars = room.chars, other = room.other, facts = self.facts, letters = self.letters
        cdef int[::1] at = room.at, other_at = room.other_at
        for place in range(size):
            char = chars[place]
            if char < SIZE:
                fact = facts[char]
                if fact >> NEEDS & WIDE:
                    room.wide += 1
                    room.note(at[place])
                if fact & CASED:
                    char = self.cased[char]
            if char < LIMIT:
                other[made], other_at[made] = char, at[place]
                made += 1
                continue
            room.moved = True
            start = <Py_ssize_t>self.starts[char - LIMIT]
            end = start + <Py_ssize_t>self.lengths[char - LIMIT]
            for start in range(start, end):
                other[made], other_at[made] = letters[start], at[place]
                made += 1
        room.swap()
        return made

    cdef Py_ssize_t _marks(self, _Room room, Py_ssize_t size) except -1:
        """A letter and its marks are one character where there is such; other marks go."""
        cdef Py_ssize_t place = 0, kept = 0, end, each
        cdef u32 one
        cdef u32[::1] chars = room.chars, facts = self.facts
        cdef int[::1] at = room.at
        while place < size:
            end = place
            while end < size and chars[end] < SIZE and facts[chars[end]] & 15 == MARK:
                end += 1
            each = place
            if place and place < end <= place + 2 and self._normal(room, place - 1, end) == 1:
                one = room.parts[0]
                if one != chars[place - 1]:
                    chars[kept - 1] = one
                    each = end
            for each in range(each, end):
                if chars[each] != 0x20E3:  # it makes a digit a key
                    room.combining += 1
                    room.note(at[each])
            if end < size:
                chars[kept], at[kept] = chars[end], at[end]
                kept += 1
            place = end + 1
        room.moved = room.moved or kept < size
        return kept

    cdef Py_ssize_t _compose(self, _Room room, Py_ssize_t size) except -1:
        """Syllables of Korean and the like, written in parts."""
        cdef Py_ssize_t place = 0, kept = 0, end, made, each
        cdef u32[::1] chars = room.chars, facts = self.facts
        cdef int[::1] at = room.at
        while place < size:
            end = place + 1
            while end < size and chars[end] < SIZE and facts[chars[end]] >> NEEDS & COMBINES:
                end += 1
            made = -1
            if end - place > 1 or (place == 0 and chars[0] < SIZE and facts[chars[0]] >> NEEDS & COMBINES):
                made = self._normal(room, place, end)
            elif kept == place:
                kept = place = end
                continue
            if 0 <= made <= end - place:
                for each in range(made):
                    chars[kept + each], at[kept + each] = room.parts[each], at[place + each]
                kept += made
            else:
                for each in range(place, end):
                    chars[kept], at[kept] = chars[each], at[each]
                    kept += 1
            place = end
        room.moved = room.moved or kept < size
        return kept

    cdef Py_ssize_t _normal(self, _Room room, Py_ssize_t first, Py_ssize_t last) except -2:
        """These characters composed, in ``room.parts``, and how many that is; -1 if they are so already."""
        cdef Py_ssize_t place
        cdef u16 said, all_said = 0
        cdef int before = 0
        cdef bint ordered = True
        for place in range(first, last):
            said = self.order[room.chars[place]] if room.chars[place] < DEEP else 0
            ordered = ordered and (said & CLASS == 0 or said & CLASS >= before)
            before = said & CLASS
            all_said |= said
        if ordered and not all_said & JOINS:
            return -1
        if room.parts.shape[0] < PARTS * (last - first):
            room.parts = np.zeros(PARTS * (last - first), np.uint32)
            room.sorted = np.zeros(PARTS * (last - first), np.uint32)
        if not ordered or all_said & APART:
            return self._composed(room, self._apart(room, first, last))
        for place in range(first, last):
            room.parts[place - first] = room.chars[place]
        return self._composed(room, last - first)

    cdef Py_ssize_t _apart(self, _Room room, Py_ssize_t first, Py_ssize_t last) except -1:
        """These characters taken apart, marks in their order; how many there are."""
        cdef Py_ssize_t place, part, made = 0, run = 0
        cdef u32 char
        cdef int nth
        for place in range(first, last):
            char = room.chars[place]
            nth = self.apart[char] if char < DEEP else 0
            if nth:
                for part in range(self.taken_starts[nth], self.taken_starts[nth + 1]):
                    run = self._added(room, made, run, self.taken[part])
                    made += 1
            elif SYLLABLE <= char < SYLLABLE + SYLLABLES:
                self._sort(room, run, made)
                char -= SYLLABLE
                room.parts[made] = LEADING + char // (VOWELS * TRAILINGS)
                room.parts[made + 1] = VOWEL + char % (VOWELS * TRAILINGS) // TRAILINGS
                made += 2
                if char % TRAILINGS:
                    room.parts[made] = TRAILING + char % TRAILINGS
                    made += 1
                run = made
            else:
                run = self._added(room, made, run, char)
                made += 1
        self._sort(room, run, made)
        return made

    cdef Py_ssize_t _added(self, _Room room, Py_ssize_t made, Py_ssize_t run, u32 char) except -1:
        """One more character; where the marks behind the last one that is none begin."""
        room.parts[made] = char
        if self._class(char):
            return run
        if made > run + 1:
            self._sort(room, run, made)
        return made + 1

    cdef int _class(self, u32 char) except -1:
        return self.order[char] & CLASS if char < DEEP else 0

    cdef int _sort(self, _Room room, Py_ssize_t first, Py_ssize_t last) except -1:
        """Marks by their classes; those of one class stay as they are."""
        cdef Py_ssize_t place, to
        cdef u32 char
        cdef int kind
        if last - first > SHORT:
            room.classes[:] = 0
            for place in range(first, last):
                room.classes[self._class(room.parts[place]) + 1] += 1
            for kind in range(256):
                room.classes[kind + 1] += room.classes[kind]
            for place in range(first, last):
                kind = self._class(room.parts[place])
                room.sorted[room.classes[kind]] = room.parts[place]
                room.classes[kind] += 1
            room.parts[first:last] = room.sorted[: last - first]
            return 0
        for place in range(first + 1, last):
            char = room.parts[place]
            kind = self._class(char)
            to = place
            while to > first and self._class(room.parts[to - 1]) > kind:
                room.parts[to] = room.parts[to - 1]
                to -= 1
            room.parts[to] = char
        return 0

    cdef Py_ssize_t _composed(self, _Room room, Py_ssize_t size) except -1:
        """What was taken apart put together again; how many characters are left."""
        cdef Py_ssize_t place, made = 0, base = -1
        cdef u32 char, one
        cdef int kind, before = 0
        for place in range(size):
            char = room.parts[place]
            kind = self._class(char)
            if base >= 0 and (made == base + 1 or (kind and before < kind)):
                one = self._pair(room.parts[base], char)
                if one:
                    room.parts[base] = one
                    continue
            if not kind:
                base = made
            before = kind
            room.parts[made] = char
            made += 1
        return made

    cdef u32 _pair(self, u32 first, u32 second) except? 0:
        """What these two are together; 0 for nothing."""
        cdef u64 pair = <u64>first << 32 | second, at
        if LEADING <= first < LEADING + LEADINGS and VOWEL <= second < VOWEL + VOWELS:
            return SYLLABLE + ((first - LEADING) * VOWELS + second - VOWEL) * TRAILINGS
        if (SYLLABLE <= first < SYLLABLE + SYLLABLES and TRAILING < second < TRAILING + TRAILINGS
                and (first - SYLLABLE) % TRAILINGS == 0):
            return first + second - TRAILING
        if second >= DEEP or not self.order[second] & JOINS:
            return 0
        at = _mixed(pair) & self.mask
        while self.composed[at] and self.pairs[at] != pair:
            at = (at + 1) & self.mask
        return self.composed[at]

    cdef int _flags(self, _Room room, Py_ssize_t size) except -1:
        """Letters of flags, where they are no flag."""
        cdef Py_ssize_t place, run = 0
        cdef u32[::1] chars = room.chars
        cdef bint letters = False
        for place in range(size + 1):
            if place < size and 0x1F1E6 <= chars[place] < 0x1F200:
                run += 1
            else:
                letters = letters or run % 2 == 1 or run > 4
                run = 0
        for place in range(size if letters else 0):
            if 0x1F1E6 <= chars[place] < 0x1F200:
                chars[place] -= 0x1F1E6 - 0x61
                room.flags += 1
                room.note(room.at[place])
        return 0

    cdef Py_ssize_t _word(self, _Room room, Py_ssize_t place, Py_ssize_t size) except -1:
        """Reads a word that begins at a place; where it ends."""
        if not 0 <= place <= size <= room.chars.shape[0] or self.facts.shape[0] < SIZE:
            raise IndexError(place, size)
        cdef const u32* chars = &room.chars[0]  # for all of these places it was checked
        cdef const u32* facts = &self.facts[0]
        cdef u32 char, fact
        cdef int script, scripts = 0, strange = 0, own = 0
        while place < size:
            char = chars[place]
            fact = facts[char] if char < SIZE else 0
            if not fact & WORD:
                break
            script = fact >> SCRIPT & 15
            scripts |= script
            if script > LATIN:
                strange += fact & ALIKE == 0
            elif script == LATIN:
                own += fact & OWN != 0
            place += 1
        room.scripts, room.strange, room.own = scripts, strange, own
        return place

    cdef int _twins(self, _Room room, Py_ssize_t size) except -1:
        """Letters of other scripts that stand for Latin ones."""
        cdef Py_ssize_t place = 0, end
        cdef Py_ssize_t latin = 0, mixed = 0, whole = 0, real = 0
        cdef int scripts = 0
        cdef bint fold_whole, russian
        while place < size:
            end = self._word(room, place, size)
            scripts |= room.scripts
            if room.scripts & LATIN:
                latin += 1
                mixed += room.scripts > LATIN
            elif room.scripts and room.strange:
                real += 1
            elif room.scripts:
                whole += 1
            place = end + 1
        fold_whole = whole and real * 2 <= whole <= latin
        if not scripts & LATIN or not (mixed or fold_whole):
            return 0
        russian = real > latin - mixed
        place = 0
        while place < size:
            end = self._word(room, place, size)
            if room.scripts > LATIN and not room.scripts & LATIN:
                if fold_whole and not room.strange:
                    self._to_latin(room, place, end)
            elif room.scripts > LATIN:
                if real and room.scripts & CYRILLIC and room.strange >= room.own + (not russian):
                    self._from_latin(room, place, end)
                else:
                    self._to_latin(room, place, end)
            place = end + 1
        return 0

    cdef int _to_latin(self, _Room room, Py_ssize_t place, Py_ssize_t end) except -1:
        cdef u32 char
        for place in range(place, end):
            char = room.chars[place]
            if self.facts[char] >> SCRIPT & 15 > LATIN and self.near[char]:
                room.chars[place] = self.near[char]
                room.twins += 1
                room.note(room.at[place])
        return 0

    cdef int _from_latin(self, _Room room, Py_ssize_t place, Py_ssize_t end) except -1:
        """A Russian word with Latin letters in it."""
        cdef u32 char
        for place in range(place, end):
            char = room.chars[place]
            if self.facts[char] >> SCRIPT & 15 == LATIN:
                if char | 32 < 128 and self.back[char | 32] != char | 32:
                    room.chars[place] = self.back[char | 32]
                room.twins += 1
                room.note(room.at[place])
        return 0

    cdef Py_ssize_t _lowered(self, _Room room, Py_ssize_t size) except -1:
        """The plain form, in the other arrays, and how many characters that is."""
        cdef Py_ssize_t place, made = 0, part, end
        cdef u32 char
        cdef bint spaced = True  # none at the beginning
        room.fit(size + self.longest)
        cdef u32[::1] chars = room.chars, facts = self.facts, lower = self.lower, letters = self.letters
        cdef u32[::1] other = room.other
        cdef int[::1] at = room.other_at
        for place in range(size):
            char = chars[place]
            if char < SIZE and facts[char] & LOWER:
                char = lower[char]
                if char >= LIMIT:
                    part = <Py_ssize_t>self.starts[char - LIMIT]
                    end = part + <Py_ssize_t>self.lengths[char - LIMIT]
                    if room.other.shape[0] < made + size - place + self.longest:
                        room.grow(made, made + size - place + self.longest)
                        other, at = room.other, room.other_at
                    for part in range(part, end):
                        made = _put(room, made, letters[part], place, &spaced)
                    continue
            if char == 32 or 9 <= char <= 13:
                if spaced:
                    continue
                char, spaced = 32, True
            else:
                spaced = False
            other[made], at[made] = char, <int>place
            made += 1
        return made - 1 if made and spaced else made


cdef inline Py_ssize_t _put(_Room room, Py_ssize_t made, u32 char, Py_ssize_t place, bint* spaced) except -1:
    """One more character of the plain form; of spaces only the first."""
    if char == 32 or 9 <= char <= 13:
        if spaced[0]:
            return made
        char = 32
        spaced[0] = True
    else:
        spaced[0] = False
    room.other[made], room.other_at[made] = char, <int>place
    return made + 1


cdef u64 _mixed(u64 key):
    """A number whose bits all depend on those of another."""
    key *= 0x9E3779B97F4A7C15ULL
    return key ^ key >> 32


cdef bint _usual(u32 char, u32 before, u32 after):
    """Whether writing needs this invisible character: within emoji, and between letters of Persian or Hindi."""
    if char == 0x200C or char == 0x200D:
        return before >= 0x590 and before != char and after >= 0x590
    if char != 0xFE0E and char != 0xFE0F:
        return False
    if 0xFE00 <= before < 0xFE10 or before >= 0xE0000:
        return False
    return before >= 0x203C or before in (0x23, 0x2A, 0xA9, 0xAE) or 0x30 <= before < 0x3A


cdef Py_ssize_t _end_of_flag(u32[::1] chars, Py_ssize_t place, Py_ssize_t size) except -2:
    """Where the flag of England, Scotland or Wales ends that begins at this place; -1 if none does."""
    cdef Py_ssize_t end
    for end in range(place + 1, min(place + 8, size)):
        if chars[end] == 0xE007F:
            return end
    return -1


cdef Py_ssize_t _size(text) except -1:
    if not isinstance(text, str):
        raise TypeError("this is no text")
    return len(<str>text)


cdef str _text(u32[::1] chars, Py_ssize_t size):
    return PyUnicode_FromKindAndData(4, &chars[0], size) if size else ""


cdef dict _told(_Room room):
    """What was removed or folded, in the order of the steps."""
    told = {}
    for name, count in (
        ("invisible", room.counts[INVISIBLE]),
        ("bidi", room.counts[BIDI]),
        ("tag", room.counts[TAG]),
        ("variation", room.counts[VARIATION]),
        ("control", room.counts[CONTROL] + room.counts[RUBOUT]),
        ("wide", room.wide),
        ("combining", room.combining),
        ("wide", room.flags),
        ("homoglyph", room.twins),
    ):
        if count:
            told[name] = told.get(name, 0) + count
    return told
