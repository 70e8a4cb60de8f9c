# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The loops over every character of what may be written in a code, compiled: words of other alphabets, escapes, and
what is put in their place.

Each says what `wholes`, `escapes`, `parts` and `pieces` say in Python, which is what this was written from and what is
used where there is no compiler. Texts come from strangers, so every access to an array is checked. Nothing is kept from
text to text.
"""

import numpy as np

ctypedef unsigned int u32
ctypedef unsigned long long u64

cdef u64 START = 0xCBF29CE484222325ULL  # FNV-1a, on characters: http://www.isthe.com/chongo/tech/comp/fnv/
cdef u64 STEP = 0x100000001B3ULL
cdef Py_ssize_t LONG_NUMBER = 34  # letters and digits of an entity that is a number
cdef Py_ssize_t LONG_NAME = 35  # characters of one that is a name, with the sign at its end


cdef inline bint _is_digit(Py_UCS4 each):
    return 48 <= each <= 57


cdef inline bint _is_alnum(Py_UCS4 each):
    return 48 <= each <= 57 or 65 <= each <= 90 or 97 <= each <= 122


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


cdef int _number(str text, Py_ssize_t at, Py_ssize_t digits) except -2:
    """So many hexadecimal digits as a number, -1 if they are not there."""
    cdef int value = 0, digit
    cdef Py_ssize_t place
    if at + digits > len(text):
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


cdef class _Parts:
    """What was read, where it stands; bytes that follow each other are one text."""

    cdef list parts
    cdef bytearray data
    cdef Py_ssize_t begin, end

    def __init__(self):
        self.parts, self.data, self.begin, self.end = [], bytearray(), 0, -1

    cdef int byte(self, int value, Py_ssize_t place, Py_ssize_t end) except -1:
        if self.data and place != self.end:
            self.close()
        if not self.data:
            self.begin = place
        if value >= 0:
            self.data.append(value)
        self.end = end
        return 0

    cdef int text(self, str said, Py_ssize_t place, Py_ssize_t end) except -1:
        if self.data:
            self.close()
        self.parts.append((said, place, end))
        self.end = end
        return 0

    cdef int close(self) except -1:
        self.parts.append((self.data.decode("utf-8", "replace"), self.begin, self.end))
        self.data = bytearray()
        return 0

    cdef list all(self):
        if self.data:
            self.close()
        return self.parts


def percents(str text, str sign, Py_ssize_t most):
    """Two hexadecimal digits behind a sign; behind "=" a line may end, too."""
    cdef _Parts found = _Parts()
    cdef Py_ssize_t place = text.find(sign)
    cdef bint lines = sign == "="
    cdef int value
    while place >= 0 and most:
        if place >= found.end:
            most -= 1
            value = _number(text, place + 1, 2)
            if value >= 0:
                found.byte(value, place, place + 3)
            elif lines and place + 1 < len(text) and text[place + 1] == u"\n":
                found.byte(-1, place, place + 2)
        place = text.find(sign, place + 1)
    return found.all()


def backslashes(str text, Py_ssize_t most, other):
    """``other`` says what stands at a place, and to where, of what has letters or braces in its number."""
    cdef _Parts found = _Parts()
    cdef Py_ssize_t place = text.find("\\"), at
    cdef int value
    cdef Py_UCS4 kind
    while place >= 0 and most:
        if place >= found.end:
            most -= 1
            kind = text[place + 1] if place + 1 < len(text) else 0
            if kind == u"n" or kind == u"r" or kind == u"t":
                found.text("\n", place, place + 2)
            elif kind == u"x":
                value = _number(text, place + 2, 2)
                if value >= 0:
                    found.byte(value, place, place + 4)
            elif 48 <= kind <= 51:
                value = _octal(text, place + 1)
                if value >= 0:
                    found.byte(value, place, place + 4)
            elif kind == u"u" or kind == u"U":
                value = _number(text, place + 2, 4)
                if kind == u"u" and value >= 0:
                    found.text(chr(value), place, place + 6)
                elif 0 <= value <= 16 and _number(text, place + 6, 4) >= 0:
                    found.text(chr(65536 * value + _number(text, place + 6, 4)), place, place + 10)
                elif (at := _braced(text, place + 2)) > 0:
                    value = _number(text, place + 3, at - place - 4)
                    if value < 0x110000:
                        found.text(chr(value), place, at)
                else:
                    said = other(text, place)
                    if said is not None:
                        found.text(said[0], place, said[1])
        place = text.find("\\", place + 1)
    return found.all()


cdef Py_ssize_t _braced(str text, Py_ssize_t at) except -1:
    """Where up to seven hexadecimal digits in braces end; 0 if they are not there."""
    cdef Py_ssize_t end = at + 1, size = len(text)
    if at >= size or text[at] != u"{":
        return 0
    while end < size and end - at < 8 and _hex(text[end]) >= 0:
        end += 1
    return end + 1 if end > at + 1 and end < size and text[end] == u"}" else 0


cdef int _octal(str text, Py_ssize_t at) except -2:
    cdef Py_UCS4 second, third
    if at + 3 > len(text):
        return -1
    second, third = text[at + 1], text[at + 2]
    if not (48 <= second <= 55 and 48 <= third <= 55):
        return -1
    return 64 * (<int>text[at] - 48) + 8 * (<int>second - 48) + <int>third - 48


def entities(str text, Py_ssize_t most, other):
    """``other`` says what an entity is that is a name, or a number with something odd about it."""
    cdef _Parts found = _Parts()
    cdef Py_ssize_t place = text.find("&"), size = len(text), at
    cdef Py_UCS4 each
    while place >= 0 and most:
        if place >= found.end:
            most -= 1
            each = text[place + 1] if place + 1 < size else 0
            if each == u"#":
                _numbered(text, place, found, other)
            elif place + 1 < size and not (each == u";" or each == u"<" or each == u"&" or each == u" " or each == u"\t"
                                           or each == u"\n" or each == u"\f"):
                at = text.find(";", place + 2, place + 1 + LONG_NAME)
                if at > 0:
                    said = other(text[place:at + 1])
                    if said is not None:
                        found.text(said, place, at + 1)
        place = text.find("&", place + 1)
    return found.all()


cdef int _numbered(str text, Py_ssize_t place, _Parts found, other) except -1:
    cdef Py_ssize_t first = place + 2, size = len(text), at, end, begin
    cdef int value = 0
    cdef bint is_hex
    end = first
    while end < size and end - first < LONG_NUMBER and _is_alnum(text[end]):
        end += 1
    is_hex = end > first and (text[first] == u"x" or text[first] == u"X")
    begin = at = first + is_hex
    while at < end and (_hex(text[at]) >= 0 if is_hex else _is_digit(text[at])):
        if value < 0x110000:
            value = (16 if is_hex else 10) * value + _hex(text[at])
        at += 1
    if at == begin:
        return 0
    if 32 <= value < 127 or 160 <= value < 0xD800:
        if at == end:
            if end - first < LONG_NUMBER and end < size and text[end] == u";":
                end += 1
            found.text(chr(value), place, end)
        return 0
    said = other(text[place:end])
    if said is not None:
        if end - first < LONG_NUMBER and end < size and text[end] == u";":
            end += 1
        found.text(said, place, end)
    return 0


def in_place(str text, list parts, Py_ssize_t around):
    cdef list placed = []
    cdef Py_ssize_t at = 0, reach = -1, start, end, first, size = len(text)
    for part in parts:
        said, start, end = part
        first = max(start - around, 0)
        if first > reach:
            if reach >= 0:
                _ended(text, at, reach, placed)
            at = first
        reach = max(reach, min(end + around, size))
        if at < start:
            placed.append((text[at:start], at, start))
        if said:
            placed.append(part)
        at = end
    if reach >= 0:
        _ended(text, at, reach, placed)
    return placed


cdef int _ended(str text, Py_ssize_t at, Py_ssize_t reach, list placed) except -1:
    if at < reach:
        placed.append((text[at:reach], at, reach))
    placed.append(("\n", reach - 1, reach))
    return 0


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
