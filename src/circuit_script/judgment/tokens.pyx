# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The loops over every character of words that are to be put right, compiled: letters without spaces as words, tokens
with digits and signs in them, which tokens take a closer look, and how many words were put right.

Each says what `english`, `spelling` and `disguise` say without them, which is what this was written from and what is used where
there is no compiler. Texts come from strangers, so every access to an array is checked.

Arrays are kept from text to text, as in `loops.pyx`.
"""

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_FromKindAndData
from libc.string cimport memcmp

import numpy as np

ctypedef unsigned int u32
ctypedef unsigned long long u64

cdef extern from "Python.h":
    Py_UCS4* PyUnicode_AsUCS4(object text, Py_UCS4* chars, Py_ssize_t room, int ends) except NULL

cdef Py_ssize_t LEAST = 4096  # characters that there is room for
cdef Py_ssize_t KEPT = 1 << 17  # characters, more than which no room is kept for

cdef Py_ssize_t LONG_CODE = 64  # characters of a token, more than which it is not remembered

cdef u32 ALPHA = 1  # of a character what it is
cdef u32 ALNUM = 2
cdef u32 DIGIT = 4
cdef u32 DRESS = 8  # a sign that stands for a letter
cdef u32 DRAWS = 16  # a sign without which no letter is drawn
cdef u32 LEET = 32  # anything else that stands for a letter
cdef u32 END = 64
cdef u32 FRONT = 128
cdef u32 ELL = 256  # what stands for an l, too
cdef u32 NEVER = 512  # what is in no frequent word, however that is drawn
cdef u32 CODE = 1024  # a sign of code of the first kind; each of the others has twice the number of the one before

cdef unsigned char ITSELF = 1  # of a character what it says alone
cdef unsigned char NOTHING = 2
cdef unsigned char CHANGED = 3

cdef u32 NONE = 0x80  # of a letter what is left of it, if that is no ASCII one
cdef u32 OTHER = 0x81


cdef int _take(u32[::1] chars, str text) except -1:
    """The characters of a text as numbers."""
    if len(text) > chars.shape[0]:
        raise IndexError(len(text))
    if text:
        PyUnicode_AsUCS4(text, <Py_UCS4*>&chars[0], chars.shape[0], 0)
    return 0


cdef str _text(u32[::1] chars, Py_ssize_t first, Py_ssize_t last):
    """These characters as a text."""
    if not 0 <= first <= last <= chars.shape[0]:
        raise IndexError(first, last)
    return <str>PyUnicode_FromKindAndData(4, &chars[first], last - first) if first < last else ""


cdef bint _is_plain(str token) except -1:
    """Whether these are small letters of ASCII."""
    cdef Py_UCS4 char
    for char in token:
        if not u"a" <= char <= u"z":
            return False
    return True


cdef Py_ssize_t _place(const long long[::1] sums, long long least) except -1:
    """The first place of what is at least so much."""
    cdef Py_ssize_t low = 0, high = sums.shape[0], middle
    while low < high:
        middle = (low + high) // 2
        if sums[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline bint _is_space(Py_UCS4 char) noexcept:
    if 0x20 < char < 0x7F:
        return False
    return char.isspace() if char <= 0xA0 or 0x1680 <= char <= 0x3000 else False


cdef str _small(str token):
    """A token in lower case."""
    cdef Py_UCS4 char
    for char in token:
        if char >= 128 or u"A" <= char <= u"Z":
            return token.casefold()
    return token


def _tree(words):
    """What may follow what in words: from what was read and the next letter to all of it, and whether that is one."""
    nodes, whole = [[0] * 26], [0]
    for word in words:
        node = 0
        for each in word.encode("ascii"):
            if not nodes[node][each - 97]:
                nodes[node][each - 97] = len(nodes)
                nodes.append([0] * 26)
                whole.append(0)
            node = nodes[node][each - 97]
        whole[node] = 1
    return np.array(nodes, np.int32).ravel(), np.array(whole, np.uint8)


cdef class _Costs:
    """What so many letters take to be split into words."""

    cdef Py_ssize_t size
    cdef u32[::1] chars, out
    cdef long long[::1] cost
    cdef int[::1] back

    def __init__(self, Py_ssize_t size):
        self.size = size
        self.chars, self.out = np.zeros(size, np.uint32), np.zeros(2 * size, np.uint32)
        self.cost, self.back = np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int32)


@cython.final
cdef class Splitter:
    """`english.words_in`."""

    cdef _Costs spare
    cdef int[::1] steps  # from what was read and the next letter to all of it
    cdef unsigned char[::1] whole  # whether that is a word
    cdef unsigned char[::1] bared  # of each character of the first plane that was met what is left of it
    cdef object bare_letter

    def __init__(self, words, bare_letter):
        self.bared, self.bare_letter = np.zeros(0x10000, np.uint8), bare_letter
        self.steps, self.whole = _tree(words)

    def words_in(self, str letters not None):
        """Letters without spaces as words."""
        cdef Py_ssize_t size = len(letters)
        cdef _Costs room = self._room(size)
        self._weigh(room, letters, size)
        words = self._told(room, size)
        if room.size <= KEPT:
            self.spare = room
        return words

    def bare(self, str letters not None):
        """Letters without what is put on them, if these are ASCII."""
        cdef Py_ssize_t size = len(letters), done = 0
        cdef Py_UCS4 char
        cdef _Costs room = self._room(size)
        cdef u32[::1] out = room.out
        cdef u32 left = 0
        for char in letters:
            left = self._bared(char)
            if left == OTHER:
                break
            if left != NONE:
                out[done] = left
                done += 1
        bare = letters if left == OTHER else _text(out, 0, done)
        if room.size <= KEPT:
            self.spare = room
        return bare

    cdef u32 _bared(self, Py_UCS4 char) except? 0xFFFF:
        cdef u32 left
        if char < 128:
            return char
        left = self.bared[char] if char < 0x10000 else 0
        if not left:
            bare = self.bare_letter(chr(char))
            left = OTHER if not bare.isascii() else <u32>ord(bare) if bare else NONE
            if char < 0x10000:
                self.bared[char] = left
        return left

    cdef _Costs _room(self, Py_ssize_t size):
        cdef _Costs room = self.spare
        self.spare = None
        if room is None or room.size < size:
            room = _Costs(max(2 * size, LEAST))
        return room

    cdef int _weigh(self, _Costs room, str letters, Py_ssize_t size) except -1:
        """Of each place the least that what stands before it costs, and where its last word begins."""
        cdef u32[::1] chars = room.chars
        cdef long long[::1] cost = room.cost
        cdef int[::1] back = room.back
        cdef int[::1] steps = self.steps
        cdef unsigned char[::1] whole = self.whole
        cdef long long stray = size + 1, here
        cdef Py_ssize_t start, end
        cdef u32 char
        cdef int node
        _take(chars, letters)
        for end in range(size + 1):
            cost[end] = stray * stray
        cost[0] = 0
        for start in range(size):
            here = cost[start] + 1
            node, end = 0, start
            while end < size:
                char = chars[end] - 97
                if char >= 26:
                    break
                node = steps[26 * node + char]
                if not node:
                    break
                end += 1
                if whole[node] and here < cost[end]:
                    cost[end], back[end] = here, <int>start
            if here - 1 + stray < cost[start + 1]:
                cost[start + 1], back[start + 1] = here - 1 + stray, <int>start + 1  # a letter that is left over
        return 0

    cdef str _told(self, _Costs room, Py_ssize_t size):
        """The letters with a space on each side of a word, from the last one on."""
        cdef u32[::1] chars = room.chars, out = room.out
        cdef int[::1] back = room.back
        cdef Py_ssize_t at = size, end = 2 * size, begin = 2 * size, first, place
        cdef bint word, behind = False
        while at > 0:
            word = back[at] < at
            first = back[at] if word else at - 1
            if begin < end and (word or behind):
                begin -= 1
                out[begin] = 0x20
            for place in range(at - 1, first - 1, -1):
                begin -= 1
                out[begin] = chars[place]
            at, behind = first, word
        return _text(out, begin, end)


cdef class _Signs:
    """What a token of so many characters takes to be put right."""

    cdef Py_ssize_t size
    cdef u32[::1] chars, kinds, out, folded

    def __init__(self, Py_ssize_t size):
        self.size = size
        self.chars, self.kinds, self.folded = (np.zeros(size, np.uint32) for _ in range(3))
        self.out = np.zeros(2 * size, np.uint32)


@cython.final
cdef class Speller:
    """What `spelling` says of tokens."""

    cdef _Signs spare
    cdef frozenset common, telling
    cdef Py_ssize_t shortest, longest, long_word, most_drawn, strung, few  # of words; as in `spelling`
    cdef unsigned short[::1] kinds  # of each character of the first plane
    cdef unsigned char[::1] alone  # what it says alone, where that is known
    cdef u32[::1] leet, ells  # of each ASCII character
    cdef u32 euro, euro_leet  # the one that is not ASCII
    cdef int[::1] steps  # of frequent words, as `_tree` has them
    cdef unsigned char[::1] whole
    cdef int[::1] telling_steps
    cdef unsigned char[::1] telling_whole
    cdef list drawn
    cdef u32[:, ::1] pairs  # of two characters the drawn letters that begin with them, as bits
    cdef dict further  # of what telling words begin with the letters that may follow, as bits
    cdef Py_ssize_t apart, pieces
    cdef frozenset cut, begins  # what telling words begin with, and what of that may be a word that goes on
    cdef str ends, closes
    cdef u32 code  # its kinds of signs
    cdef object segmented, words_in, put
    cdef Py_ssize_t kept
    cdef dict codes  # what tokens say by themselves that are longer than words

    def __init__(self, *, common, telling, leet, ells, drawn, draws, dresses, ends, fronts, long_word, most_drawn,
                 strung, apart, pieces, code_signs, closes, few, cut, begins, segmented, words_in, put, kept):
        self.common, self.telling = common, telling
        self.shortest, self.longest = min(map(len, telling)), max(map(len, common))
        self.long_word, self.most_drawn, self.strung, self.few = long_word, most_drawn, strung, few
        self.steps, self.whole = _tree(common)
        self.telling_steps, self.telling_whole = _tree(telling)
        self.drawn, self.pairs = list(drawn), np.zeros((128, 128), np.uint32)
        for nth, (signs, _) in enumerate(self.drawn):
            self.pairs[ord(signs[0]), ord(signs[1])] |= <u32>1 << nth
        self.segmented, self.words_in = segmented, words_in
        self.apart, self.pieces, self.cut, self.ends = apart, pieces, frozenset(cut), ends
        self.put, self.begins = put, frozenset(begins)
        self.kept, self.further, self.codes = kept, {}, {}
        self.closes, self.code = closes, (CODE << len(code_signs)) - CODE
        for each in self.cut:
            self.further[each[:len(each) - 1]] = self.further.get(each[:len(each) - 1], 0) | 1 << ord(each[len(each) - 1]) - 97
        self.leet, self.ells = (np.array([each.get(code, code) for code in range(128)], np.uint32)
                                for each in (leet, ells))
        [self.euro] = [each for each in leet if each >= 128]
        self.euro_leet = leet[self.euro]
        kinds, known = [], {*"abcdefghijklmnopqrstuvwxyz", *map(chr, leet), *"".join(signs for signs, _ in drawn)}
        for code in range(128):
            each = chr(code)
            kinds.append(ALPHA * each.isalpha() | ALNUM * each.isalnum() | DIGIT * each.isdigit()
                         | DRESS * (each in dresses) | DRAWS * (each in draws) | LEET * (code in leet)
                         | ELL * (leet.get(code) != ells.get(code)) | END * (each in ends) | FRONT * (each in fronts)
                         | NEVER * (each not in known)
                         | sum([CODE << nth for nth, signs in enumerate(code_signs) if each in signs]))
        self.kinds, self.alone = np.zeros(0x10000, np.uint16), np.zeros(0x10000, np.uint8)
        for code in range(0x10000):
            self.kinds[code] = kinds[code] if code < 128 else self._kind_beyond(code)

    cdef inline u32 _kind(self, Py_UCS4 char) except? 0xFFFF:
        return self.kinds[char] if char < 0x10000 else self._kind_beyond(char)

    cdef u32 _kind_beyond(self, Py_UCS4 char) noexcept:
        """What a character is that is none of ASCII."""
        if char == self.euro:
            return DRESS | LEET
        if char.isalpha():
            return ALPHA | ALNUM | NEVER
        return (ALNUM if char.isalnum() else 0) | (DIGIT if char.isdigit() else 0) | NEVER

    cdef _Signs _room(self, Py_ssize_t size):
        cdef _Signs room = self.spare
        self.spare = None
        if room is None or room.size < size:
            room = _Signs(max(2 * size, LEAST))
        return room

    def usual(self, list tokens not None, known not None):
        """What each of these tokens says by itself; what was met is in ``known`` then."""
        cdef str token
        return [self._known(token, known) for token in tokens]

    cdef inline object _known(self, str token, known):
        cdef PyObject* found
        if len(token) == 1:
            return self._single(token)
        found = PyDict_GetItemWithError(known, token)
        return <object>found if found != NULL else self._met(token, known)

    cdef str _single(self, str token):
        """What one character says."""
        cdef Py_UCS4 char = token[0]
        cdef unsigned char known = self.alone[char] if char < 0x10000 else 0
        if known == ITSELF:
            return token
        said = _small(token) if known != NOTHING and token.isalnum() else ""
        if char < 0x10000:
            self.alone[char] = NOTHING if not said else ITSELF if said == token else CHANGED
        return said

    cdef object _met(self, str token, known):
        if len(token) <= self.long_word:
            return self._noted(token, known)
        if len(token) > LONG_CODE:
            return self._usual(token)
        cdef PyObject* found = PyDict_GetItemWithError(self.codes, token)
        return <object>found if found != NULL else self._noted(token, self.codes)

    cdef object _noted(self, str token, known):
        word = self._usual(token)
        if len(known) >= self.kept:
            known.clear()
        known[token] = word
        return word

    cdef object _usual(self, str token):
        cdef str small, right
        if _is_plain(token):
            return None if token in self.begins else token
        small = _small(token)
        if small.isalpha():
            return None if small in self.begins else small
        right, new = self.righted(small)
        if new:
            return self.put(right)
        return None if small[len(small) - 1] in u"-_." and small[:len(small) - 1] in self.cut else right

    def look(self, list tokens not None, list said not None, dict put not None, spell not None):
        """Look at the tokens that take it, and how many had to be put right: what they say is in ``said`` then, and of
        several that say it together the first in ``put``, with what follows. ``spell`` says what single letters do."""
        cdef list usual = said[:]
        cdef str token
        cdef Py_ssize_t nth, first = 0, done = 0, last, size = len(usual), changed = 0
        cdef str words
        for nth in range(size + 1):
            each, token = "", ""
            if nth < size:
                each, token = usual[nth], tokens[nth]
            if len(token) == 1:
                continue
            if nth - first >= self.apart and nth > done:  # several tokens of one character each
                first = max(first, done)
                words = spell(first, nth)
                if words:
                    changed += self._put_together(said, put, first, nth, words)
                done = nth
            first = nth + 1
            if each is None and nth >= done:
                words = self._joined(tokens, nth, &last)
                if last > nth + 1:
                    changed += self._put_together(said, put, nth, last, words)
                else:
                    said[nth] = words
                done = last
            elif type(each) is self.put and nth >= done:
                changed += 1
        return changed

    cdef int _put_together(self, list said, dict put, Py_ssize_t first, Py_ssize_t last, str words) except -1:
        cdef Py_ssize_t nth
        said[first], put[first] = words, last
        for nth in range(first + 1, last):
            said[nth] = ""
        return 1

    cdef str _joined(self, list tokens, Py_ssize_t nth, Py_ssize_t* follows):
        """What a token says with those that belong to it, and what follows."""
        cdef Py_ssize_t last
        cdef str small = _small(tokens[nth]), joined = small, piece
        follows[0] = nth + 1
        if not _is_plain(small) and not small.isalpha():
            piece = self._piece(tokens, nth + 1) if nth + 1 < len(tokens) else small
            first = small[:len(small) - 1]
            joined = first + piece
            if joined in self.telling and not (first in self.common and piece in self.common):
                follows[0] = nth + 2
                return joined
            return self.righted(small)[0] or small
        if nth + 1 < len(tokens) and not self._may_go_on(small, tokens[nth + 1]):
            return small
        for last in range(nth + 1, min(nth + self.pieces, len(tokens))):
            if last > nth + 1 and joined not in self.cut:
                break
            piece = self._piece(tokens, last)
            joined += piece
            if joined in self.telling and not (small in self.common and piece in self.common):
                follows[0] = last + 1
                return joined
            if not piece.isalpha():
                break
        return small

    cdef bint _may_go_on(self, str small, str behind) except -1:
        """Whether a telling word may begin with these two; quickly seen where the second begins with a letter."""
        cdef Py_UCS4 char = behind[0]
        cdef u32 letter = <u32>char | 0x20, some
        if <u32>char >= 128 or not 0x61 <= letter <= 0x7A:
            return True
        some = self.further.get(small, 0)
        return some >> (letter - 0x61) & 1

    cdef str _piece(self, list tokens, Py_ssize_t nth):
        """A token without what ends a sentence."""
        cdef str small = _small(tokens[nth])
        return small if _is_plain(small) else small.rstrip(self.ends)

    def spelled(self, str letters not None, const long long[:] starts, const long long[:] ends):
        """Single letters in rows, with the first places and the last; a gap that is wider than most ends one."""
        cdef Py_ssize_t size = len(letters)
        cdef _Signs room = self._room(size)
        cdef list rows = [], firsts = [], lasts = []
        _take(room.chars, letters)
        self._rows(room, size, starts, ends, 0, rows, firsts, lasts)
        if room.size <= KEPT:
            self.spare = room
        return rows, firsts, lasts

    def row_of(self, list tokens not None, Py_ssize_t first, Py_ssize_t last, const long long[:] starts,
               const long long[:] ends):
        """What tokens of one character say, of which those are the places of all tokens; "" for nothing."""
        cdef Py_ssize_t nth, size = last - first
        cdef _Signs room = self._room(size)
        cdef list rows = []
        cdef str row
        if not 0 <= first <= last <= len(tokens):
            raise IndexError(first, last)
        for nth in range(size):
            row = tokens[first + nth]
            if row is None:
                raise TypeError("this is no text")
            room.chars[nth] = row[0]
        self._rows(room, size, starts, ends, first, rows, None, None)
        if room.size <= KEPT:
            self.spare = room
        cdef list said = []
        for row in rows:
            if len(row) != 1 or row[0] >= 128:
                row = self.segmented(row)
            if row:
                said.append(row)
        return " ".join(said)

    cdef int _rows(self, _Signs room, Py_ssize_t size, const long long[:] starts, const long long[:] ends,
                   Py_ssize_t begin, list rows, list firsts, list lasts) except -1:
        """Put so many letters, of which the first one has this place among the others, in rows."""
        cdef Py_ssize_t count = 0, alphas = 0, at, first = 0
        cdef long long least = -1, last = 0
        cdef u32 kind, char
        cdef u32[::1] chars = room.chars, nths = room.folded
        cdef unsigned short[::1] known = self.kinds
        for at in range(size):
            char = chars[at]
            kind = known[char] if char < 0x10000 else self._kind(char)
            if kind & ALNUM:
                if count and (least < 0 or starts[begin + at] - last < least):
                    least = starts[begin + at] - last
                chars[count], nths[count], last = char, <u32>(begin + at), ends[begin + at]
                alphas += kind & ALPHA
                count += 1
        if count < self.apart or alphas < count // 2:
            return 0
        for at in range(1, count + 1):
            if at == count or starts[nths[at]] - ends[nths[at - 1]] > least:
                rows.append(_small(_text(chars, first, at)))
                if firsts is not None:
                    firsts.append(starts[nths[first]])
                    lasts.append(ends[nths[at - 1]])
                first = at
        for at in range(len(rows)):
            if not _is_plain(rows[at]) and not (<str>rows[at]).isalpha():
                rows[at] = self._read_through(room, rows[at])
        return 0

    def said_of(self, list rows not None):
        """What rows of letters say."""
        cdef list said = []
        cdef str row
        for row in rows:
            said.append(row if len(row) == 1 and row[0] < 128 else self.segmented(row))
        return said

    def shared(self, list rows not None, list said not None, list starts not None, list ends not None):
        """Of the words in each row the first places and the last, told by share."""
        cdef Py_ssize_t nth, count = len(rows)
        cdef long long first, width, size, upto
        cdef list firsts = [], lasts = []
        cdef str words, row
        cdef Py_UCS4 char
        for nth in range(count):
            first, width, words, upto = starts[nth], ends[nth] - starts[nth], said[nth], 0
            row = rows[nth]
            size = max(len(row), 1)
            if not words:
                continue
            if words == row:
                firsts.append(starts[nth])
                lasts.append(ends[nth])
                continue
            firsts.append(first)
            for char in words:
                if char == u" ":
                    lasts.append(first + width * upto // size)
                    firsts.append(lasts[len(lasts) - 1])
                else:
                    upto += 1
            lasts.append(first + width * upto // size)
        return firsts, lasts

    cdef str _read_through(self, _Signs room, str word):
        """A word with letters in the place of digits."""
        cdef Py_UCS4 char
        cdef u32 seen = 0
        if len(word) > room.size:
            room = _Signs(len(word))  # some letters are several in lower case
        for char in word:
            seen |= self._kind(char)
        return self._folded(room, word, seen)

    def token_places(self, str text not None, Py_ssize_t start, Py_ssize_t end):
        """`page.token_places`."""
        cdef Py_ssize_t at = max(start, 0), first = -1, count = 0, last = min(end, len(text))
        cdef Py_UCS4 char
        both = np.empty((2, max(last - at, 0) // 2 + 1), np.int64)
        cdef long long[:, ::1] told = both
        cdef str part = text[at:last]
        for char in part:
            if not _is_space(char):
                if first < 0:
                    first = at
            elif first >= 0:
                told[0, count], told[1, count] = first, at
                count += 1
                first = -1
            at += 1
        if first >= 0:
            told[0, count], told[1, count] = first, last
            count += 1
        return both[0, :count], both[1, :count]

    def word_ends(self, list words not None):
        """Where each of these ends with the space behind it, where there is one between two that say something."""
        cdef Py_ssize_t nth = 0
        upto = np.empty(len(words), np.int64)
        cdef long long[::1] told = upto
        cdef long long total = 0, size
        for word in words:
            size = len(word)
            total += size + (size > 0)
            told[nth] = total
            nth += 1
        return upto

    def words_end(self, str text not None):
        """The same of the words of a text."""
        cdef Py_ssize_t nth = 0, size = 0
        cdef Py_UCS4 char
        upto = np.empty(len(text) // 2 + 1, np.int64)
        cdef long long[::1] told = upto
        cdef long long total = 0
        for char in text:
            if not _is_space(char):
                size += 1
            elif size:
                total += size + 1
                told[nth], size = total, 0
                nth += 1
        if size:
            told[nth] = total + size + 1
            nth += 1
        return upto[:nth]

    def placed(self, const long long[::1] words not None, const long long[::1] tokens not None, Py_ssize_t nth):
        """The token that says a word, which of its words that is, and where that token, that word and the one before
        end."""
        cdef long long upto = words[nth]
        cdef Py_ssize_t token = _place(tokens, upto)
        cdef long long before = tokens[token - 1] if token else 0
        return token, nth - _place(words, before + 1), before, tokens[token], words[nth - 1] if nth else 0, upto

    def dense(self, str text not None):
        """A text that is full of digits for letters."""
        cdef Py_ssize_t size = len(text), at, first = 0, start = 0, done = 0  # a word, and where what it says begins
        cdef Py_ssize_t alphas = 0, digits = 0
        cdef _Signs room = self._room(size)
        cdef u32[::1] chars = room.chars, out = room.out
        cdef unsigned short[::1] known = self.kinds
        cdef u32 char, kind, seen = 0
        cdef bint changed = False
        _take(chars, text)
        for at in range(size + 1):
            char = chars[at] if at < size else 0x20
            out[done] = char
            done += 1
            if char != 0x20:
                kind = known[char] if char < 0x10000 else self._kind(char)
                seen |= kind
                alphas += kind & ALPHA
                digits += (kind & DIGIT) != 0
                continue
            if alphas < at - first and seen & (LEET | DRAWS) and (digits < at - first or digits < 4):
                if seen & DRAWS:
                    word = self._undrawn(room, text[first:at], seen, alphas)
                    if word is not None:
                        changed, done = True, self._put(room, word, start)
                        out[done] = char
                        done += 1
                elif at - first < self.long_word:
                    changed |= self._put_dense(room, first, at, start, 2 * alphas >= at - first)
            first, start, seen, alphas, digits = at + 1, done, 0, 0, 0
        said = _text(out, 0, done - 1) if changed else text
        if room.size <= KEPT:
            self.spare = room
        return said

    cdef str _undrawn(self, _Signs room, str word, u32 seen, Py_ssize_t alphas):
        """What a word with signs says that letters are drawn with; None if it is as it is."""
        folded = self._folded(room, word, seen)
        return folded if len(word) < self.long_word and 2 * alphas >= len(word) or folded in self.common else None

    cdef bint _put_dense(
        self, _Signs room, Py_ssize_t first, Py_ssize_t last, Py_ssize_t start, bint surely
    ) except -1:
        """Put letters in the place of digits and signs; whether they say something."""
        cdef Py_ssize_t at
        cdef bint ells = not self._is_common(room, first, last, False) and self._is_common(room, first, last, True)
        if not surely and not ells and not self._is_common(room, first, last, False):
            return False
        for at in range(first, last):
            room.out[start + at - first] = self._letter(room.chars[at], ells)
        return True

    cdef inline u32 _letter(self, u32 char, bint ells) except? 0xFFFF:
        """What a digit or a sign stands for."""
        if char < 128:
            return self.ells[char] if ells else self.leet[char]
        return self.euro_leet if char == self.euro else char

    def righted(self, str token not None):
        """A token as words of letters and digits, and whether it was dressed up."""
        cdef Py_ssize_t size = len(token), at = 0
        cdef Py_UCS4 char
        cdef _Signs room = self._room(size)
        cdef u32[::1] chars = room.chars, kinds = room.kinds
        cdef unsigned short[::1] known = self.kinds
        for char in token:
            chars[at] = char
            kinds[at] = known[char] if char < 0x10000 else self._kind(char)
            at += 1
        said = self._righted(room, token, size)
        if room.size <= KEPT:
            self.spare = room
        return said

    cdef tuple _righted(self, _Signs room, str token, Py_ssize_t size):
        cdef Py_ssize_t first = 0, last = size, alphas = 0, alnums = 0, parts = 0, longest = 0, run = 0, at
        cdef u32 seen = 0, around = 0, kind
        while last and room.kinds[last - 1] & END:
            last -= 1
            around |= room.kinds[last]
        while first < last and room.kinds[first] & FRONT:
            around |= room.kinds[first]
            first += 1
        if first == last:
            return "", False
        for at in range(first, last):
            kind = room.kinds[at]
            seen |= kind
            alphas += kind & ALPHA
            run = (run + 1) * ((kind & ALNUM) != 0)
            alnums += run > 0
            parts += run == 1
            longest = max(longest, run)
        core = token[first:last]
        if alphas == last - first:
            folded = self._folded(room, token, around) if size > alphas and token[size - 1] == u"!" else ""
            return (folded, True) if folded in self.telling and core not in self.common else (core, False)
        if parts == alnums > 3 and 5 * alphas > 4 * alnums:
            return self._spelled(room, first, last, alphas == alnums), True
        if alphas:
            folded = self._whole(room, core, seen, last - first)
            if folded is None and last - first < size:
                folded = self._whole(room, token, seen | around, last - first)
            if folded is not None:
                return folded, True
        elif last - first == 3 and core in ("411", "4|1", "4!!"):
            return "all", True
        if parts > 1:
            whole = self._strung(room, core, first, last, parts, alnums, alphas == alnums, longest, seen)
            if whole is not None:
                return whole
        return self._pieces(room, first, last, seen)

    cdef str _whole(self, _Signs room, str word, u32 seen, Py_ssize_t size):
        """All of a token as a frequent word, None if it is none."""
        if seen & NEVER or size > self.most_drawn or not seen & (LEET | DRAWS):
            return None
        if not seen & DRAWS and len(word) > self.longest:
            return None
        folded = self._folded(room, word, seen)
        return folded if folded in self.common and folded != word else None

    cdef str _spelled(self, _Signs room, Py_ssize_t first, Py_ssize_t last, bint alpha):
        """Single letters with signs between them, and maybe some digits, as words."""
        cdef Py_ssize_t at, start = 0, size = self._bare(room, first, last)
        cdef list runs = []
        if alpha:
            return self.segmented(_text(room.out, 0, size))
        for at in range(1, size + 1):
            if at == size or (self._kind(room.out[at]) ^ self._kind(room.out[start])) & ALPHA:
                run = _text(room.out, start, at)
                runs.append(self.segmented(run) if self._kind(room.out[start]) & ALPHA else run)
                start = at
        return " ".join(runs)

    cdef Py_ssize_t _bare(self, _Signs room, Py_ssize_t first, Py_ssize_t last) except -1:
        """Put what are letters and digits together; how many they are."""
        cdef Py_ssize_t at, size = 0
        for at in range(first, last):
            room.out[size] = room.chars[at]
            size += (room.kinds[at] & ALNUM) != 0
        return size

    cdef tuple _strung(self, _Signs room, str core, Py_ssize_t first, Py_ssize_t last, Py_ssize_t parts,
                       Py_ssize_t alnums, bint alpha, Py_ssize_t longest, u32 seen):
        """Several parts as what they say together; None if that is nothing."""
        cdef bint many = 2 * parts > alnums > 5 and alpha
        cdef Py_ssize_t size = self._bare(room, first, last) if alnums <= self.longest or many else 0
        if alnums <= self.longest:
            if parts == alnums and alpha:
                whole = self.segmented(_text(room.out, 0, size))
                if whole in self.common:
                    return whole, whole in self.telling
            if self._is_word(room, size) and not self._all_common(room, first, last):
                joined = _text(room.out, 0, size)
                return joined, joined in self.telling
        if parts >= self.strung and alpha and longest >= self.shortest:
            seen &= self.code
            if self._is_strung(room, first, last, seen & (seen - 1) or self.closes in core) and "://" not in core:
                return _text(room.out, 0, self._put_parts(room, first, last, 0)), True
        if many and self._holds_telling(room, size):
            words = self.words_in(_text(room.out, 0, size))
            if not self.telling.isdisjoint(words.split()):
                return words, True
        return None

    cdef bint _is_word(self, _Signs room, Py_ssize_t size) except -1:
        """Whether the letters that were put together are a frequent word."""
        cdef Py_ssize_t at
        cdef int node = 0
        for at in range(size):
            node = self.steps[26 * node + room.out[at] - 97] if 97 <= room.out[at] < 123 else 0
            if not node:
                return False
        return self.whole[node]

    cdef bint _holds_telling(self, _Signs room, Py_ssize_t size) except -1:
        """Whether a telling word is in them."""
        cdef Py_ssize_t first, at
        cdef int node
        for first in range(size):
            node = 0
            for at in range(first, size):
                node = self.telling_steps[26 * node + room.out[at] - 97] if 97 <= room.out[at] < 123 else 0
                if not node:
                    break
                if self.telling_whole[node]:
                    return True
        return False

    cdef Py_ssize_t _part_end(self, _Signs room, Py_ssize_t first, Py_ssize_t last) except -1:
        """Where the part ends that begins here."""
        while first < last and room.kinds[first] & ALNUM:
            first += 1
        return first

    cdef bint _all_common(self, _Signs room, Py_ssize_t first, Py_ssize_t last) except -1:
        cdef Py_ssize_t end
        while first < last:
            end = self._part_end(room, first, last)
            if end > first and _text(room.chars, first, end) not in self.common:
                return False
            first = end + 1
        return True

    cdef bint _is_strung(self, _Signs room, Py_ssize_t first, Py_ssize_t last, bint code) except -1:
        """Whether a telling word is among parts; with code, whether two that differ are, or one among as many as signs
        hold together with neither a sign of code nor a quote between them."""
        cdef Py_ssize_t end, run = 0
        cdef bint telling = False  # whether one is in this run
        cdef str before = None
        while first < last:
            end = self._part_end(room, first, last)
            if end == first:
                if room.kinds[first] & (self.code | FRONT):
                    run, telling = 0, False
                first += 1
                continue
            run += 1
            if first + self.shortest <= end <= first + self.longest:
                part = _text(room.chars, first, end)
                if part in self.telling:
                    if not code or before is not None and part != before:
                        return True
                    before, telling = part, True
            if telling and run >= self.strung:
                return True
            first = end
        return False

    cdef tuple _pieces(self, _Signs room, Py_ssize_t first, Py_ssize_t last, u32 seen):
        """Each part for itself, with the signs in it that stand for letters."""
        cdef u32 kept = ALNUM | (seen & DRESS), of_all
        cdef Py_ssize_t at = first, start, alphas, digits, done = 0
        cdef bint new = False
        while at < last:
            if not room.kinds[at] & kept:
                at += 1
                continue
            start, alphas, digits, of_all = at, 0, 0, 0
            while at < last and room.kinds[at] & kept:
                of_all |= room.kinds[at]
                alphas += room.kinds[at] & ALPHA
                digits += (room.kinds[at] & DIGIT) != 0
                at += 1
            if not of_all & ALNUM:
                continue
            folded = None
            if alphas != at - start and digits != at - start:
                folded = self._read(room, start, at, of_all, alphas)
                new |= at - start > self.few and folded in self.common
            if folded is None:
                done = self._put_parts(room, start, at, done)
                continue
            if done:
                room.out[done] = 0x20
            done = self._put(room, folded, done + (done > 0))
        return _text(room.out, 0, done), new

    cdef str _read(self, _Signs room, Py_ssize_t first, Py_ssize_t last, u32 seen, Py_ssize_t alphas):
        """A part with digits and signs as a word, None if it is none."""
        cdef Py_ssize_t size = last - first
        cdef bint mixed
        if size > (self.most_drawn if seen & DRAWS else self.long_word):
            return None
        mixed = size <= self.long_word and 2 * alphas >= size and self._mixed(room, first, last)
        if not mixed and not (seen & DRAWS and self._has_pairs(room, first, last)):
            if size > self.longest or seen & NEVER or not self._says_common(room, first, last):
                return None
        folded = self._folded(room, _text(room.chars, first, last), seen)
        return folded if mixed or folded in self.common else None

    cdef bint _has_pairs(self, _Signs room, Py_ssize_t first, Py_ssize_t last) except -1:
        """Whether a drawn letter may begin in there."""
        cdef Py_ssize_t at
        for at in range(first + 1, last):
            if room.chars[at - 1] < 128 and room.chars[at] < 128 and self.pairs[room.chars[at - 1], room.chars[at]]:
                return True
        return False

    cdef bint _says_common(self, _Signs room, Py_ssize_t first, Py_ssize_t last) except -1:
        """Whether a part is a frequent word with letters in the place of digits and signs."""
        return self._is_common(room, first, last, False) or self._is_common(room, first, last, True)

    cdef bint _is_common(self, _Signs room, Py_ssize_t first, Py_ssize_t last, bint ells) except -1:
        cdef Py_ssize_t at
        cdef u32 char
        cdef int node = 0
        for at in range(first, last):
            char = self._letter(room.chars[at], ells) - 97
            node = self.steps[26 * node + char] if char < 26 else 0
            if not node:
                return False
        return self.whole[node]

    cdef bint _mixed(self, _Signs room, Py_ssize_t first, Py_ssize_t last) except -1:
        """Whether a digit stands between two letters."""
        cdef Py_ssize_t at
        for at in range(first + 1, last - 1):
            if room.kinds[at] & DIGIT and room.kinds[at - 1] & room.kinds[at + 1] & ALPHA:
                return True
        return False

    cdef Py_ssize_t _put_parts(self, _Signs room, Py_ssize_t first, Py_ssize_t last, Py_ssize_t done) except -1:
        """Add letters and digits to what is said, with spaces between them; where that ends."""
        cdef Py_ssize_t at
        for at in range(first, last):
            if not room.kinds[at] & ALNUM:
                continue
            if done and (at == first or not room.kinds[at - 1] & ALNUM):
                room.out[done] = 0x20
                done += 1
            room.out[done] = room.chars[at]
            done += 1
        return done

    cdef Py_ssize_t _put(self, _Signs room, str word, Py_ssize_t done) except -1:
        """Put a word there; where that ends."""
        cdef Py_UCS4 char
        for char in word:
            room.out[done] = <u32>char
            done += 1
        return done

    cdef str _folded(self, _Signs room, str word, u32 seen):
        """A word with letters in the place of digits and signs."""
        cdef u32 pairs = self._pairs(word) if seen & DRAWS else 0
        cdef Py_ssize_t nth = 0
        while pairs:
            if pairs & 1:
                drawn, letter = self.drawn[nth]
                word = word.replace(drawn, letter)
            pairs >>= 1
            nth += 1
        folded = self._translated(room, word, False)
        if len(folded) > self.longest or folded in self.common or not seen & (ELL | DRAWS):
            return folded
        ells = self._translated(room, word, True)
        return ells if ells in self.common else folded

    cdef u32 _pairs(self, str word) except? 0xFFFFFFFF:
        """The drawn letters that a word may have: it has how they begin, and each that is put right ends a pair."""
        cdef Py_UCS4 char, before = 0
        cdef u32 found = 0
        for char in word:
            if before < 128 and char < 128:
                found |= self.pairs[before, char]
            before = char
        return found

    cdef str _translated(self, _Signs room, str word, bint ells):
        cdef Py_ssize_t at = 0
        cdef Py_UCS4 char
        for char in word:
            room.folded[at] = self._letter(char, ells)
            at += 1
        return _text(room.folded, 0, at)


cdef class _Words:
    """What texts of so many characters take to be held against each other, word for word."""

    cdef Py_ssize_t size
    cdef u32[::1] chars
    cdef int[::1] starts, sizes, counts, slots  # a slot has the number of a word and one, or 0
    cdef u64[::1] hashes
    cdef unsigned char[::1] known

    def __init__(self, Py_ssize_t size):
        self.size = size
        self.chars, self.slots = np.zeros(size, np.uint32), np.zeros(2 * size, np.int32)
        self.starts, self.sizes, self.counts = (np.zeros(size // 2 + 1, np.int32) for _ in range(3))
        self.hashes, self.known = np.zeros(size // 2 + 1, np.uint64), np.zeros(size // 2 + 1, np.uint8)


@cython.final
cdef class Shares:
    """`disguise.put_right`."""

    cdef _Words spare
    cdef u64 step, mask  # nobody knows the step, and writes words that all have one slot
    cdef Py_ssize_t words  # that were met

    def __init__(self, u64 step):
        self.step = step | 1

    def put_right(self, str said not None, str plain not None):
        """How many words of what is said are not in the text as it is, and of how many."""
        cdef Py_ssize_t size = len(said) + len(plain) + 2, tokens, nth, count, right = 0
        cdef _Words room = self.spare
        self.spare = None
        if room is None or room.size < size:
            room = _Words(max(2 * size, LEAST))
        self.words, self.mask = 0, 1
        while self.mask < <u64>size:
            self.mask *= 2
        room.slots[:<Py_ssize_t>self.mask] = 0
        self.mask -= 1
        self._read(room, plain, 0, False)
        tokens = self.words
        count = self._read(room, said, len(plain) + 1, True)
        if self.words > tokens:
            for nth in range(tokens):
                if not room.counts[nth]:
                    self._pass(room, room.starts[nth], room.starts[nth] + room.sizes[nth])
        for nth in range(tokens, self.words):
            if not room.known[nth]:
                right += room.counts[nth]
        if room.size <= KEPT:
            self.spare = room
        return right, count

    cdef Py_ssize_t _read(self, _Words room, str text, Py_ssize_t at, bint said) except -1:
        """Note the words of a text, which stands behind so many characters; how many they are."""
        cdef u32[::1] chars = room.chars
        cdef Py_ssize_t first = -1, count = 0
        cdef Py_UCS4 char
        cdef u64 value = 0
        for char in text:
            if _is_space(char):
                if first >= 0:
                    self._note(room, first, at, value, said)
                    count += 1
                    first = -1
            else:
                if first < 0:
                    first, value = at, 0
                chars[at] = char
                value = self._mixed(value, char)
            at += 1
        if first >= 0:
            self._note(room, first, at, value, said)
            count += 1
        return count

    cdef inline u64 _mixed(self, u64 value, u32 char) noexcept:
        value = (value ^ char ^ 0x110000) * self.step
        return value ^ (value >> 32)

    cdef inline int _note(self, _Words room, Py_ssize_t first, Py_ssize_t last, u64 value, bint said) except -1:
        cdef Py_ssize_t slot = self._slot(room, first, last, value), nth = room.slots[slot] - 1
        if nth < 0:
            nth = self.words
            self.words += 1
            room.slots[slot] = <int>self.words
            room.starts[nth], room.sizes[nth], room.hashes[nth] = <int>first, <int>(last - first), value
            room.counts[nth], room.known[nth] = 0, not said
        room.counts[nth] += said
        return 0

    cdef inline Py_ssize_t _slot(self, _Words room, Py_ssize_t first, Py_ssize_t last, u64 value) except -1:
        """The slot of a word, or the free one where it belongs."""
        cdef u64 slot = value & self.mask
        cdef Py_ssize_t nth, size = last - first
        if not 0 <= first < last <= room.chars.shape[0]:
            raise IndexError(first, last)
        while room.slots[slot]:
            nth = room.slots[slot] - 1
            if (room.hashes[nth] == value and room.sizes[nth] == size
                    and (size == 1 or memcmp(&room.chars[first], &room.chars[room.starts[nth]], size * sizeof(u32)) == 0)):
                break  # two characters have two hashes
            slot = (slot + 1) & self.mask
        return <Py_ssize_t>slot

    cdef int _pass(self, _Words room, Py_ssize_t first, Py_ssize_t last) except -1:
        """Note that the letters and digits of this token are words of the text as it is."""
        cdef u32[::1] chars = room.chars
        cdef Py_ssize_t at, begin = -1, nth
        cdef Py_UCS4 char
        cdef u64 value = 0
        for at in range(first, last + 1):
            char = chars[at] if at < last else 0x20
            if char.isalnum() or char == u"_":
                if begin < 0:
                    begin, value = at, 0
                value = self._mixed(value, char)
            elif begin >= 0:
                nth = room.slots[self._slot(room, begin, at, value)] - 1
                if nth >= 0:
                    room.known[nth] = 1
                begin = -1
        return 0
