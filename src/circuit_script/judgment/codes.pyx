# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The loops over every character of what may be written in a code, compiled: words of other alphabets, escapes, and
what is put in their place.

Each says what `wholes`, `escapes`, `parts` and `pieces` say in Python, which is what this was written from and what is
used where there is no compiler. Texts come from strangers, so every access to an array is checked. Nothing is kept from
text to text.
"""

cimport cython
from cpython.unicode cimport PyUnicode_FromKindAndData

import numpy as np

ctypedef unsigned int u32
ctypedef unsigned long long u64

cdef u64 START = 0xCBF29CE484222325ULL  # FNV-1a, on characters: http://www.isthe.com/chongo/tech/comp/fnv/
cdef u64 STEP = 0x100000001B3ULL
cdef Py_ssize_t LONG_NUMBER = 34  # letters and digits of an entity that is a number
cdef Py_ssize_t LONG_NAME = 35  # characters of one that is a name, with the sign at its end
cdef enum:
    SHORT = 2048  # characters of a piece that is read here


cdef inline bint _is_digit(Py_UCS4 each):
    return 48 <= each <= 57


cdef inline bint _is_alnum(Py_UCS4 each):
    return 48 <= each <= 57 or 65 <= each <= 90 or 97 <= each <= 122


cdef inline bint _is_letter(u32 each):
    return 65 <= each <= 90 or 97 <= each <= 122


cdef inline u32 _small(u32 each):
    return each + 32 if 65 <= each <= 90 else each


cdef inline int _hex(Py_UCS4 each):
    if 48 <= each <= 57:
        return <int>each - 48
    if 97 <= each <= 102:
        return <int>each - 87
    if 65 <= each <= 70:
        return <int>each - 55
    return -1


cdef int _number(const u32[::1] text, Py_ssize_t at, Py_ssize_t digits) except -2:
    """So many hexadecimal digits as a number, -1 if they are not there."""
    cdef int value = 0, digit
    cdef Py_ssize_t place
    if at + digits > text.shape[0]:
        return -1
    for place in range(at, at + digits):
        digit = _hex(text[place])
        if digit < 0:
            return -1
        value = 16 * value + digit
    return value


cdef inline bint _is_space(u32 each):
    return each == 32 or 9 <= each <= 13 or 28 <= each <= 31 or each > 127 and (<Py_UCS4>each).isspace()


def _codes(str text):
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


cdef class Images:
    """`wholes.hits`: words that are known, in what other alphabets or orders write them."""

    cdef u64 mask
    cdef int[::1] slots, begins, sizes  # a slot has the number of a word and one, or 0
    cdef u32[::1] letters
    cdef unsigned char[::1] around  # characters of ASCII that stand around words
    cdef Py_ssize_t shortest, longest
    cdef str folded
    cdef object other

    def __init__(self, list images, str around, str folded, other):
        """``other`` says what number a word has with letters in it that are folded to others, -1 for none."""
        cdef u64 slot
        self.folded, self.other = folded, other
        sizes = [len(each) for each in images]
        self.shortest, self.longest = min(sizes), max(sizes)
        self.sizes = np.array(sizes, np.int32)
        self.begins = (np.cumsum(sizes) - sizes).astype(np.int32)
        self.letters = np.array([ord(each) for word in images for each in word], np.uint32)
        self.around = np.array([chr(each) in around for each in range(128)], np.uint8)
        self.mask = 4095
        while self.mask < 4 * len(sizes):
            self.mask = 2 * self.mask + 1
        self.slots = np.zeros(self.mask + 1, np.int32)
        for nth, word in enumerate(images):
            slot = self._hash(_codes(word), 0, len(word))
            while self.slots[slot]:
                slot = (slot + 1) & self.mask
            self.slots[slot] = nth + 1

    cdef u64 _hash(self, const u32[::1] text, Py_ssize_t start, Py_ssize_t end) except? 0:
        cdef u64 told = START
        cdef Py_ssize_t at
        for at in range(start, end):
            told = (told ^ <u64>_small(text[at])) * STEP
        return (told ^ (told >> 32)) & self.mask

    cdef int _nth(self, const u32[::1] text, Py_ssize_t start, Py_ssize_t end) except -2:
        """The number of the word that stands there, -1 if none does."""
        cdef u64 slot = self._hash(text, start, end)
        cdef int nth
        cdef Py_ssize_t at, size = end - start
        while self.slots[slot]:
            nth = self.slots[slot] - 1
            if self.sizes[nth] == size:
                for at in range(size):
                    if _small(text[start + at]) != self.letters[self.begins[nth] + at]:
                        break
                else:
                    return nth
            slot = (slot + 1) & self.mask
        return -1

    def hits(self, str text):
        cdef const u32[::1] chars = _codes(text)
        cdef Py_ssize_t at = 0, size = len(text), start, end, first, count = 0
        cdef int nth
        cdef bint plain, odd
        found = np.empty((size // 2 + 1, 3), np.int32)
        cdef int[:, ::1] rows = found
        while at < size:
            if _is_space(chars[at]):
                at += 1
                continue
            start, plain, odd = at, True, False
            while at < size and not _is_space(chars[at]):
                if chars[at] > 127:
                    plain = False
                    odd = odd or <Py_UCS4>chars[at] not in self.folded
                at += 1
            if odd or plain and at - start < self.shortest:
                continue
            first, end = start, at
            while first < end and chars[first] < 128 and self.around[chars[first]]:
                first += 1
            while end > first and chars[end - 1] < 128 and self.around[chars[end - 1]]:
                end -= 1
            if not plain:
                nth = self.other(text[first:end])
            elif self.shortest <= end - first <= self.longest:
                nth = self._nth(chars, first, end)
            else:
                nth = -1
            if nth >= 0:
                rows[count, 0], rows[count, 1], rows[count, 2] = nth, <int>start, <int>at
                count += 1
        return found[:count].copy()


cdef enum:
    KINDS_OF_ESCAPES = 4


cdef inline int _kind_of(Py_UCS4 sign):
    """Of a sign with which an escape begins its number, -1 of others."""
    if sign == 37:
        return 0
    if sign == 38:
        return 1
    if sign == 92:
        return 2
    return 3 if sign == 61 else -1


def undone(str text, str signs, Py_ssize_t most, Py_ssize_t around, dict begun, entity, backslash):
    """`escapes.undone`: of those that begin with these signs, at most so many of each. ``entity`` says what one is that
    is a name, or a number with something odd about it; ``backslash`` what stands at a place, and to where, of what has
    letters or braces in its number; ``begun`` is `escapes._begun`."""
    cdef Undone found = Undone(text, around, entity, backslash)
    found._read(signs, most)
    if not found.signs:
        return None
    found._put_words_right(begun)
    return found


@cython.final
cdef class Undone:
    """A text with what escapes stand for in their place, as far as it is near them, and where each character comes
    from. Bytes that follow each other are one text."""

    cdef readonly str text
    cdef readonly str signs
    cdef str source
    cdef const u32[::1] codes
    cdef object entity, backslash
    cdef u32[::1] chars
    cdef int[::1] origins
    cdef Py_ssize_t size, around, done, reach
    cdef bytearray data
    cdef Py_ssize_t left[KINDS_OF_ESCAPES]  # how many more of each kind are read
    cdef int kinds  # of all that was read, as bits
    cdef int kind  # of the bytes
    cdef Py_ssize_t begin, end

    def __init__(self, str text, Py_ssize_t around, entity, backslash):
        self.source, self.codes, self.around = text, _codes(text), around
        self.entity, self.backslash = entity, backslash
        self.text, self.signs, self.data = "", "", bytearray()
        self.size, self.done, self.reach, self.begin, self.end = 0, 0, -1, 0, -1
        self.kinds, self.kind = 0, -1

    def places(self):
        """Of each character its place, and one more for the end."""
        found = np.array(self.origins[:self.size + 1], np.int64)
        found[self.size] = self.reach
        return found

    cdef int _read(self, str signs, Py_ssize_t most) except -1:
        cdef Py_ssize_t place = 0, end, size = len(self.source), at
        cdef int kind
        cdef Py_UCS4 sign
        for kind in range(KINDS_OF_ESCAPES):
            self.left[kind] = 0
        for sign in signs:
            self.left[_kind_of(sign)] = most
        self.chars, self.origins = np.empty(size + 64, np.uint32), np.empty(size + 64, np.int32)
        while place < size:
            kind = _kind_of(self.codes[place])
            if kind < 0 or not self.left[kind]:
                place += 1
                continue
            self.left[kind] -= 1
            end = self._at(kind, place)
            for at in range(place + 1, end if kind == 1 else 0):  # a name may have other signs in it
                kind = _kind_of(self.codes[at])
                if kind >= 0 and kind != 1 and self.left[kind]:
                    self.left[kind] -= 1
            place = max(end, place + 1)
        self._close()
        if self.reach >= 0:
            self._ended()
            self.text = <str>PyUnicode_FromKindAndData(4, &self.chars[0], self.size)
            self.signs = "".join([sign for kind, sign in enumerate("%&\\=") if self.kinds >> kind & 1])
        return 0

    cdef int _put_words_right(self, dict begun) except -1:
        """`escapes._with_words`."""
        cdef list hits = []  # where, and how many letters
        cdef Py_ssize_t at = 0, end, last, size = 0, place, most = self.size
        while at < self.size:
            end = at + 1
            if self.chars[at] == 10 or self.chars[at] == 0xFFFD:
                while end < self.size and _is_letter(self.chars[end]):
                    end += 1
                size = self._begins_word(self.origins[at]) if end > at + 1 else 0
                if end < self.size and _is_digit(self.chars[end]):
                    size = 0
                if size:
                    letters = self.source[self.origins[at] + 1 - size:self.origins[at] + 1].lower()
                    if letters in begun.get(self.text[at + 1:end].lower(), ()):
                        hits.append((at, size))
                        most += size
            at = end
        if not hits:
            return 0
        chars, origins = np.empty(most, np.uint32), np.empty(most + 1, np.int32)
        cdef u32[::1] codes = chars
        cdef int[::1] places = origins
        at = end = 0  # of what was, and of what is made
        for last, size in [*hits, (self.size, 0)]:
            codes[end:end + last - at], places[end:end + last - at] = self.chars[at:last], self.origins[at:last]
            end += last - at
            at = last
            if size:
                place = self.origins[at]
                codes[end], places[end] = 32, <int>place
                for last in range(size):
                    codes[end + 1 + last], places[end + 1 + last] = _small(self.codes[place + 1 - size + last]), <int>place
                end += size + 1
                at += 1
        self.chars, self.origins, self.size = codes, places, end
        self.text = <str>PyUnicode_FromKindAndData(4, &self.chars[0], self.size)
        return 0

    cdef Py_ssize_t _begins_word(self, Py_ssize_t last) except -1:
        """How many letters up to this place, behind the sign of a number, may be the first ones of a word."""
        cdef u32 each = self.codes[last], sign
        if last and (each == u"n" or each == u"r" or each == u"t"):
            return self.codes[last - 1] == 92
        if last < 2 or _is_digit(each) or _is_digit(self.codes[last - 1]):
            return 0
        sign = self.codes[last - 2]
        return 2 if (sign == 37 or sign == 61) and _hex(each) >= 0 and _hex(self.codes[last - 1]) >= 0 else 0

    cdef Py_ssize_t _at(self, int kind, Py_ssize_t place) except -2:
        """Read what stands there; to where it goes, or -1."""
        cdef int value
        if kind == 1:
            return self._entity(place)
        if kind == 2:
            return self._backslash(place)
        value = _number(self.codes, place + 1, 2)
        if value >= 0:
            return self._byte(kind, value, place, place + 3)
        if kind == 3 and place + 1 < len(self.source) and self.codes[place + 1] == u"\n":  # a line that goes on
            return self._byte(kind, -1, place, place + 2)
        return -1

    cdef Py_ssize_t _entity(self, Py_ssize_t place) except -2:
        cdef Py_ssize_t size = len(self.source), at
        cdef u32 each = self.codes[place + 1] if place + 1 < size else 0
        if each == u"#":
            return self._numbered(place)
        if (place + 1 == size or each == u";" or each == u"<" or each == u"&" or each == u" " or each == u"\t"
                or each == u"\n" or each == u"\f"):
            return -1
        at = self.source.find(";", place + 2, place + 1 + LONG_NAME)
        said = self.entity(self.source[place:at + 1]) if at > 0 else None
        return -1 if said is None else self._said(1, said, place, at + 1)

    cdef Py_ssize_t _numbered(self, Py_ssize_t place) except -2:
        cdef Py_ssize_t first = place + 2, size = len(self.source), at, end, begin
        cdef int value = 0
        cdef bint is_hex
        end = first
        while end < size and end - first < LONG_NUMBER and _is_alnum(self.codes[end]):
            end += 1
        is_hex = end > first and (self.codes[first] == u"x" or self.codes[first] == u"X")
        begin = at = first + is_hex
        while at < end and (_hex(self.codes[at]) >= 0 if is_hex else _is_digit(self.codes[at])):
            if value < 0x110000:
                value = (16 if is_hex else 10) * value + _hex(self.codes[at])
            at += 1
        if at == begin:
            return -1
        plain = 32 <= value < 127 or 160 <= value < 0xD800
        said = None if plain else self.entity(self.source[place:end])
        if plain and at < end or not plain and said is None:
            return -1
        if end - first < LONG_NUMBER and end < size and self.codes[end] == u";":
            end += 1
        elif self._goes_on(end):
            return -1
        return self._char(1, value, place, end) if plain else self._said(1, said, place, end)

    cdef bint _goes_on(self, Py_ssize_t place) except -1:
        """Whether what stands there is a digit or a semicolon in an escape of another kind, so that a number
        before it may not end."""
        cdef Py_ssize_t end
        cdef int value
        cdef int kind = _kind_of(self.codes[place]) if place < len(self.source) else -1
        if kind < 0 or kind == 1 or not self.left[kind]:
            return False
        value = self._slashed(place, &end) if kind == 2 else _number(self.codes, place + 1, 2)
        return value == 59 or 48 <= value <= 57

    cdef Py_ssize_t _backslash(self, Py_ssize_t place) except -2:
        cdef Py_ssize_t end
        cdef int value = self._slashed(place, &end)
        if value < 0:
            return -1
        if end == place + 4:
            return self._byte(2, value, place, end)
        return self._char(2, value, place, end)

    cdef int _slashed(self, Py_ssize_t place, Py_ssize_t* end) except -2:
        """The number of what stands behind a backslash, and to where; bytes take four characters, and only they do. -1
        if it is none."""
        cdef Py_ssize_t at
        cdef int value
        cdef u32 kind = self.codes[place + 1] if place + 1 < len(self.source) else 0
        end[0] = place + 2
        if kind == u"n" or kind == u"r" or kind == u"t":
            return 10
        end[0] = place + 4
        if kind == u"x":
            return _number(self.codes, place + 2, 2)
        if 48 <= kind <= 51:
            return _octal(self.codes, place + 1)
        if kind != u"u" and kind != u"U":
            return -1
        value = _number(self.codes, place + 2, 4)
        end[0] = place + 6
        if kind == u"u" and value >= 0:
            return value
        end[0] = place + 10
        if 0 <= value <= 16 and _number(self.codes, place + 6, 4) >= 0:
            return 65536 * value + _number(self.codes, place + 6, 4)
        at = _braced(self.codes, place + 2)
        end[0] = at
        if at > 0:
            value = _number(self.codes, place + 3, at - place - 4)
            return value if value < 0x110000 else -1
        said = self.backslash(self.source, place)
        if said is None:
            return -1
        end[0] = said[1]
        return ord(said[0])

    cdef Py_ssize_t _byte(self, int kind, int value, Py_ssize_t place, Py_ssize_t end) except -2:
        """One more byte, or none but the end of a line."""
        if self.data and (kind != self.kind or place != self.end):
            self._close()
        if not self.data:
            self.kind, self.begin = kind, place
        if value >= 0:
            self.data.append(value)
        self.end = end
        return end

    cdef int _close(self) except -1:
        """What the bytes say is one text."""
        cdef Py_ssize_t size = len(self.data)
        if size == 1:
            self._put(self.kind, self.data[0] if self.data[0] < 128 else 0xFFFD, self.begin, self.end)
        elif size:
            self._put_all(self.kind, self.data.decode("utf-8", "replace"), self.begin, self.end)
        self.data.clear()
        return 0

    cdef Py_ssize_t _char(self, int kind, u32 char, Py_ssize_t place, Py_ssize_t end) except -2:
        if self.data:
            self._close()
        self._put(kind, char, place, end)
        return end

    cdef Py_ssize_t _said(self, int kind, str said, Py_ssize_t place, Py_ssize_t end) except -2:
        if self.data:
            self._close()
        self._put_all(kind, said, place, end)
        return end

    cdef int _put(self, int kind, u32 char, Py_ssize_t first, Py_ssize_t last) except -1:
        self._begin(kind, first, last, 1)
        self.chars[self.size], self.origins[self.size] = char, <int>(last - 1)
        self.size += 1
        return 0

    cdef int _put_all(self, int kind, str said, Py_ssize_t first, Py_ssize_t last) except -1:
        """Each character stands at its share of what the text was read from, the last one at its end."""
        cdef Py_ssize_t within, size = len(said)
        self._begin(kind, first, last, size)
        for within in range(size):
            self.chars[self.size] = said[within]
            self.origins[self.size] = <int>(first + (last - first) * within // size)
            self.size += 1
        if size:
            self.origins[self.size - 1] = <int>(last - 1)
        return 0

    cdef int _begin(self, int kind, Py_ssize_t first, Py_ssize_t last, Py_ssize_t size) except -1:
        """Take over what stands before, as far as it is near."""
        cdef Py_ssize_t near = max(first - self.around, 0)
        self.kinds |= 1 << kind
        if near > self.reach:
            if self.reach >= 0:
                self._ended()
            self.done = near
        self.reach = max(self.reach, min(last + self.around, len(self.source)))
        self._take(first, size)
        self.done = last
        return 0

    cdef int _ended(self) except -1:
        """What is near ends here, with the line."""
        self._take(self.reach, 1)
        self.chars[self.size], self.origins[self.size] = 10, <int>(self.reach - 1)
        self.size += 1
        return 0

    cdef int _take(self, Py_ssize_t last, Py_ssize_t more) except -1:
        """Take over what stands up to a place, and have room for more, and for the end."""
        cdef Py_ssize_t at, size = self.size + max(last - self.done, 0) + more + 1
        if size > self.chars.shape[0]:
            chars, origins = np.empty(2 * size, np.uint32), np.empty(2 * size, np.int32)
            chars[:self.size], origins[:self.size] = self.chars[:self.size], self.origins[:self.size]
            self.chars, self.origins = chars, origins
        for at in range(self.done, last):
            self.chars[self.size], self.origins[self.size] = self.codes[at], <int>at
            self.size += 1
        return 0


cdef Py_ssize_t _braced(const u32[::1] text, Py_ssize_t at) except -1:
    """Where up to seven hexadecimal digits in braces end; 0 if they are not there."""
    cdef Py_ssize_t end = at + 1, size = text.shape[0]
    if at >= size or text[at] != u"{":
        return 0
    while end < size and end - at < 8 and _hex(text[end]) >= 0:
        end += 1
    return end + 1 if end > at + 1 and end < size and text[end] == u"}" else 0


cdef int _octal(const u32[::1] text, Py_ssize_t at) except -2:
    cdef u32 second, third
    if at + 3 > text.shape[0]:
        return -1
    second, third = text[at + 1], text[at + 2]
    if not (48 <= second <= 55 and 48 <= third <= 55):
        return -1
    return 64 * (<int>text[at] - 48) + 8 * (<int>second - 48) + <int>third - 48


def apart(list parts):
    """Those of these parts, which are in the order of their places, that do not overlap the one before."""
    cdef list kept = []
    cdef Py_ssize_t reach = 0, start, end
    for part in parts:
        _, start, end = part
        if start >= reach:
            kept.append(part)
            reach = end
    return kept


def in_place(str text, list parts, Py_ssize_t around):
    return _placed(text, parts, around, True)


def text_in_place(str text, list parts, Py_ssize_t around):
    """The texts of those parts as one."""
    return "".join(_placed(text, parts, around, False))


cdef list _placed(str text, list parts, Py_ssize_t around, bint told):
    """``told``: with their places."""
    cdef list placed = []
    cdef Py_ssize_t at = 0, reach = -1, start, end, first, size = len(text)
    for part in parts:
        said, start, end = part
        first = max(start - around, 0)
        if first > reach:
            if reach >= 0:
                _ended(text, at, reach, placed, told)
            at = first
        reach = max(reach, min(end + around, size))
        if at < start:
            placed.append((text[at:start], at, start) if told else text[at:start])
        if said:
            placed.append(part if told else said)
        at = end
    if reach >= 0:
        _ended(text, at, reach, placed, told)
    return placed


cdef int _ended(str text, Py_ssize_t at, Py_ssize_t reach, list placed, bint told) except -1:
    if at < reach:
        placed.append((text[at:reach], at, reach) if told else text[at:reach])
    placed.append(("\n", reach - 1, reach) if told else "\n")
    return 0


def initials(bytes piece):
    """The first letters of words, in small letters; of each group of them together, which a space or a hyphen ends not."""
    cdef list groups = []
    cdef bytearray told = bytearray()
    cdef bint within = False
    cdef unsigned char each
    for each in piece:
        if _is_alnum(each):
            if not within:
                told.append(each | 0x20)
            within = True
        elif each == 32:
            within = False
        elif each == 45:
            within = True
        else:
            within = False
            if told:
                groups.append(told.decode())
                told.clear()
    if told:
        groups.append(told.decode())
    return groups


def ascii85(bytes piece):
    """What `base64.a85decode` says of a piece between its signs; None if it is none."""
    cdef const unsigned char[::1] chars = piece
    cdef bytearray told = bytearray()
    cdef Py_ssize_t at, size = len(piece) - 2
    cdef u64 value = 0
    cdef int digits = 0, left
    cdef u32 each
    for at in range(2, size + 4):
        each = chars[at] if at < size else 117  # as many as fill the last five
        if 33 <= each <= 117:
            value = 85 * value + each - 33
            digits += 1
            if digits == 5:
                if value >> 32:
                    return None
                for left in (24, 16, 8, 0):
                    told.append((value >> left) & 255)
                value = 0
                digits = 0
        elif each == 122 and not digits:
            told.extend(b"\0\0\0\0")
        elif each != 32 and not 9 <= each <= 11 and each != 13:
            return None
    left = 4 - digits
    return bytes(told[:max(len(told) - left, 0)])


cdef enum:  # of a character of ASCII
    SOLID = 1  # a letter or a digit
    PRINTS = 2
    READS = 4  # in a short text in base64


def _kinds():
    kinds = np.zeros(256, np.uint8)
    kinds[[9, 10, 13, *range(32, 127)]] = PRINTS
    kinds[[each for each in range(128) if chr(each).isalnum()]] |= SOLID
    kinds[[each for each in range(128) if chr(each).isalpha() or chr(each) in " .,!?'"]] |= READS
    return kinds


def _sixes():
    sixes = np.full(256, -1, np.int8)
    sixes[[*b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"]] = np.arange(64)
    return sixes


cdef unsigned char KINDS[256]  # these two have a number for each byte
cdef signed char SIX[256]  # the six bits that a character of base64 says, -1 for others
for _at, (_kind, _six) in enumerate(zip(_kinds(), _sixes())):
    KINDS[_at], SIX[_at] = _kind, _six


cdef bint _is_enough(Py_ssize_t size, Py_ssize_t good, Py_ssize_t solid, Py_ssize_t long_printed):
    if good == size >= long_printed:
        return solid >= 0.3 * size
    return good >= 0.93 * size and solid >= 0.55 * size


def readable(str text, Py_ssize_t long_printed, is_mark):
    """`pieces._readable` of a text beyond ASCII that is not cut; ``is_mark`` says whether a character is a mark."""
    cdef Py_ssize_t good = 0, solid = 0
    cdef Py_UCS4 each
    for each in text:
        if each < 128:
            good += KINDS[<int>each] & PRINTS != 0
            solid += KINDS[<int>each] & SOLID
        else:
            good += each.isprintable()
            solid += each.isalnum() or is_mark(each)
    return _is_enough(len(text), good, solid, long_printed)


cdef bint _is_packed(bytes data) except -1:
    """Whether bytes begin with the sign of what is compressed."""
    cdef unsigned char first, second
    if len(data) < 2:
        return False
    first, second = data[0], data[1]
    if first == 0x1F:
        return second == 0x8B
    return first == 120 and (second == 1 or second == 94 or second == 0x9C or second == 0xDA)


cdef bint _is_no_text(bytes data) except -1:
    """Whether bytes of which some are beyond ASCII, and none zero, are no text in UTF-8, or one of less than twelve
    characters; of what may be packed or UTF-16 it does not tell."""
    cdef Py_ssize_t at = 0, size = len(data), chars = 0, more
    cdef unsigned char each, least, most
    if _is_packed(data) or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    while at < size:
        each = data[at]
        at += 1
        chars += 1
        if each < 128:
            continue
        if each < 0xC2 or each > 0xF4:
            return True
        more = 1 if each < 0xE0 else 2 if each < 0xF0 else 3
        if at + more > size:
            return True
        least = 0xA0 if each == 0xE0 else 0x90 if each == 0xF0 else 0x80
        most = 0x9F if each == 0xED else 0x8F if each == 0xF4 else 0xBF
        while more:
            each = data[at]
            if not least <= each <= most:
                return True
            least, most = 0x80, 0xBF
            at += 1
            more -= 1
    return chars < 12


def said(bytes data, Py_ssize_t long_printed, other):
    """`pieces._said`, which is asked as ``other`` of what is not short, or not in ASCII and may be a text."""
    cdef Py_ssize_t at, size = len(data), good = 0, solid = 0
    cdef unsigned char each
    cdef bint high = False
    if size > SHORT or _is_packed(data):
        return other(data)
    for at in range(size):
        each = data[at]
        if not each:
            return other(data)
        high = high or each > 127
        good += KINDS[each] & PRINTS != 0
        solid += KINDS[each] & SOLID
    if high:
        return None if _is_no_text(data) else other(data)
    return data.decode("ascii") if size > 3 and _is_enough(size, good, solid, long_printed) else None


def base64(bytes piece, Py_ssize_t long_printed, other, said):
    """`pieces._of_base64`, which is asked as ``other`` of what is not usual, and ``said`` of bytes beyond ASCII."""
    cdef Py_ssize_t at, size = len(piece), left, good = 0, solid = 0, reads = 0, zeros = 0, high = 0
    cdef Py_ssize_t smalls = 0, larges = 0, digits = 0
    cdef u32 six = 0
    cdef unsigned char each
    while size and piece[size - 1] == 61:
        size -= 1
    if size % 4 == 1:
        size -= 1
    if size > SHORT or size < 6:
        return other(piece)
    cdef bytearray made = bytearray(size)
    for at in range(size):
        each = piece[at]
        if SIX[each] < 0:
            return other(piece)
        smalls += 97 <= each <= 122
        larges += 65 <= each <= 90
        digits += _is_digit(each)
        six = six << 6 | <u32>SIX[each]
        if at % 4 == 3:
            left = at // 4 * 3
            made[left], made[left + 1], made[left + 2] = six >> 16 & 255, six >> 8 & 255, six & 255
            six = 0
    if size < 16:
        if smalls + larges == size and (not larges or not smalls or larges == 1 and 65 <= piece[0] <= 90):
            return None
    elif smalls and not larges or digits == size:
        return None
    left = size // 4 * 3
    if size % 4 == 2:
        made[left] = six >> 4 & 255
    elif size % 4 == 3:
        made[left], made[left + 1] = six >> 10 & 255, six >> 2 & 255
    left = size * 6 // 8
    for at in range(left):
        each = made[at]
        high += each > 127
        zeros += each == 0
        good += KINDS[each] & PRINTS != 0
        solid += KINDS[each] & SOLID
        reads += KINDS[each] & READS != 0
    data = bytes(made[:left])
    if high and not zeros and _is_no_text(data):
        return None
    if high or zeros or _is_packed(data):
        return other(piece) if size < 16 else said(data)
    if left < 4 or not _is_enough(left, good, solid, long_printed) or size < 16 and reads < left:
        return None
    return made[:left].decode("ascii")


def base64_parts(bytes raw, str text, Py_ssize_t most, Py_ssize_t long_printed, other, said):
    """`pieces._of_runs`; ``raw`` has the text's characters in the usual alphabet."""
    cdef list found = [], runs = _runs(raw, text), run
    cdef Py_ssize_t start, end
    if len(runs) > most:
        runs = sorted(runs, key=_size)[:most]
    for run in runs:
        start, end = run[0][0], run[len(run) - 1][1]
        if len(run) == 1:
            whole = base64(raw[start:end], long_printed, other, said)
        else:
            whole = base64(b"".join([raw[first:last] for first, last in run]), long_printed, other, said)
        if whole:
            found.append((whole, start, end))
        elif len(run) > 1:
            for start, end in run:
                whole = base64(raw[start:end], long_printed, other, said)
                if whole:
                    found.append((whole, start, end))
    return found


def _size(list run):
    return run[0][0] - run[len(run) - 1][1]


cdef list _runs(bytes raw, str text):
    """Eight characters and more of base64, with those that go on in the next line."""
    cdef list runs = [], run = []
    cdef Py_ssize_t at = 0, start, size = len(raw), first = 0, last = -3
    cdef bint goes_on
    while at + 8 <= size:
        if SIX[<unsigned char>raw[at + 7]] < 0:  # none of these eight begins a piece
            at += 8
            continue
        start = at + 7
        while start > at and SIX[<unsigned char>raw[start - 1]] >= 0:
            start -= 1
        at += 8
        while at < size and SIX[<unsigned char>raw[at]] >= 0:
            at += 1
        if at - start < 8:
            continue
        if at < size and raw[at] == 61:
            at += 2 if at + 1 < size and raw[at + 1] == 61 else 1
        goes_on = last - first > 15 and (last - first) % 4 == 0 and raw[last - 1] != 61
        if goes_on and 0 < start - last < 3 and text[last].isspace() and text[start - 1].isspace():
            run.append((start, at))
        else:
            run = [(start, at)]
            runs.append(run)
        first, last = start, at
    return runs


cdef inline bint _is_signal(unsigned char each):
    return each == 46 or each == 45 or each == 95 or each == 42


cdef inline bint _is_gap(unsigned char each):
    return each == 32 or each == 9 or each == 10 or each == 12 or each == 13


cdef inline bint _parts_signals(unsigned char each):
    return _is_gap(each) or each == 47 or each == 124


cdef inline bint _parts_numbers(unsigned char each):
    return _is_gap(each) or each == 44 or each == 45 or each == 59


def morse(bytes raw, Py_ssize_t most, bytes table):
    """Six and more groups of signals, with what stands between them: what they say, and from where to where they stand.
    ``table`` has the character of each group; the place is its signals in bits, behind a one."""
    cdef list found = []
    cdef bytearray told = bytearray()
    cdef Py_ssize_t at = 0, start, first, end, size = len(raw), groups, spaces
    cdef int bits
    cdef bint apart
    while at < size and len(found) < most:
        first = at
        while at < size and _is_signal(raw[at]):
            at += 1
        if at == first:
            at += 1
            continue
        start = end = first if at - first < 7 else at - 6
        at = start
        groups = 0
        told.clear()
        while True:
            first, bits = at, 1
            while at < size and at - first < 6 and _is_signal(raw[at]):
                bits = 2 * bits + (raw[at] == 45 or raw[at] == 95)
                at += 1
            if at > first and (groups > 5 or at < size and _parts_signals(raw[at])):
                told.append(<unsigned char>table[bits])
            end = at
            if at == first or at == size or not _parts_signals(raw[at]):
                break
            groups += 1
            apart, spaces, first = False, 0, at
            while at < size and at - first < 5 and _parts_signals(raw[at]):
                spaces = spaces + 1 if raw[at] == 32 else 0
                apart = apart or spaces > 2 or raw[at] == 10 or raw[at] == 47 or raw[at] == 124
                at += 1
            end = at
            if apart:
                told.append(32)
        if groups > 5:
            found.append((b" ".join(told.split()).decode("ascii"), start, end))
        elif at < size and at > first and _is_signal(raw[at]):  # the last six of these may begin others
            end = first
        at = end
    return found


def numbers(bytes raw, Py_ssize_t most):
    """Seven and more numbers of up to three digits, with what stands between them: those that are bytes, the least and
    the highest, and from where to where they stand."""
    cdef list found = []
    cdef bytearray told = bytearray()
    cdef Py_ssize_t at = 0, start, begin, first, end, size = len(raw), count, tried = 0
    cdef int value, least, highest
    while at < size and tried < most:
        first = at
        while at < size and _is_digit(<unsigned char>raw[at]):
            at += 1
        if at == first:
            at += 1
            continue
        start = end = at = first if at - first < 4 else at - 3
        count, least, highest = 0, 1000, 0
        told.clear()
        while True:
            begin = first = at
            value = 0
            while at < size and at - first < 3 and _is_digit(<unsigned char>raw[at]):
                value = 10 * value + raw[at] - 48
                at += 1
            if at == first:
                break
            end = at
            count += 1
            least, highest = min(least, value), max(highest, value)
            told.append(value & 255)
            first = at
            while at < size and at - first < 3 and _parts_numbers(raw[at]):
                at += 1
            if at == first:
                break
        if count > 6:
            tried += 1
            if highest < 256:
                found.append((bytes(told), least, highest, start, end))
            at = end
        elif at < size and _is_digit(<unsigned char>raw[at]):  # the last three of these may begin others
            at = begin
    return found


cdef inline bint _is_five(unsigned char each):
    return 65 <= each <= 90 or 50 <= each <= 55


def base32_runs(bytes raw, Py_ssize_t most):
    """Sixteen characters and more of base32, with the signs at their end, and from where to where they stand."""
    cdef list found = []
    cdef Py_ssize_t at = 0, start, first, size = len(raw)
    while at + 16 <= size and len(found) < most:
        if not _is_five(raw[at + 15]):  # none of these sixteen begins a run
            at += 16
            continue
        first = at
        start = at + 15
        while start > first and _is_five(raw[start - 1]):
            start -= 1
        at += 16
        while at < size and _is_five(raw[at]):
            at += 1
        if at - start < 16:
            continue
        first = at
        while at < size and at < first + 6 and raw[at] == 61:
            at += 1
        found.append((raw[start:at], start, at))
    return found


def ascii85_parts(bytes raw, Py_ssize_t most, Py_ssize_t long_printed, other):
    """What stands between the signs of ascii85 and says something; ``other`` as of `said`."""
    cdef list found = []
    cdef Py_ssize_t place = raw.find(b"<~"), end, size = len(raw)
    while place >= 0 and most:
        end = place + 2
        while end < size and _is_of_ascii85(raw[end]):
            end += 1
        if end < place + 7 or end + 1 >= size or raw[end] != 126 or raw[end + 1] != 62:
            place = raw.find(b"<~", place + 1)
            continue
        most -= 1
        end += 2
        data = ascii85(raw[place:end])
        text = None if data is None else said(data, long_printed, other)
        if text:
            found.append((text, place, end))
        place = raw.find(b"<~", end)
    return found


cdef inline bint _is_of_ascii85(unsigned char each):
    return 32 <= each <= 117 or each == 122 or each == 9 or each == 10 or each == 12 or each == 13


cdef inline Py_ssize_t _pair(bytes raw, Py_ssize_t at, Py_ssize_t size) except -2:
    """Where two digits stand at a place, or behind a sign there; -1 if they do not."""
    if at + 1 < size and (raw[at] == 48 or raw[at] == 92) and raw[at + 1] == 120:
        at += 2
    elif at < size and raw[at] == 37:
        at += 1
    return at if at + 1 < size and _hex(<unsigned char>raw[at]) >= 0 and _hex(<unsigned char>raw[at + 1]) >= 0 else -1


def hexes(bytes raw, Py_ssize_t most):
    """Eight and more pairs of digits, with what stands between them: their bytes, and from where to where that is."""
    cdef list found = []
    cdef bytearray made = bytearray(len(raw) // 2 + 1)
    cdef Py_ssize_t place = 0, at, end, size = len(raw), count, reach = 0
    while place + 16 <= size and len(found) < most:
        if place >= reach:
            end, count = place, 0
            while end < size and _may_be_hex(<unsigned char>raw[end]):
                count += _hex(<unsigned char>raw[end]) >= 0
                end += 1
            reach = end + 1
            if count < 16:
                place = reach
                continue
        end, count = place, 0
        while (at := _pair(raw, end, size)) >= 0:
            made[count] = 16 * _hex(<unsigned char>raw[at]) + _hex(<unsigned char>raw[at + 1])
            count += 1
            at = end = at + 2
            while end < size and end < at + 2 and _is_between(<unsigned char>raw[end]):
                end += 1
        if count < 8:
            place += 1
            continue
        found.append((bytes(made[:count]), place, end))
        place = end
    return found


cdef inline bint _may_be_hex(unsigned char each):
    return _hex(each) >= 0 or _is_between(each) or each == 120 or each == 92 or each == 37


cdef inline bint _is_between(Py_UCS4 each):
    return each == 32 or each == 9 or each == 10 or each == 12 or each == 13 or each in u",:;-"
