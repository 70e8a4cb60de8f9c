# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""Which values of a record could say something, compiled.

Each function says what `wordless` says with expressions in Python, which is what this was written from and what is used
where there is no compiler. At each character there is one way to go on. What a loop cannot say is asked of Python: it
is sure here only of what says something, of what says nothing, and of what must be there for the rest.
Texts come from strangers, so nothing is read beyond their ends.
"""

cdef extern from "Python.h":
    Py_UCS4 PyUnicode_MAX_CHAR_VALUE(object text)
    unsigned char* PyUnicode_1BYTE_DATA(object text)

cdef struct Text:  # of ASCII
    const unsigned char* chars
    Py_ssize_t size

cdef enum:  # classes of characters
    CAPITAL = 1
    SMALL = 2
    DIGIT = 4
    LINE = 8  # - and _
    COLON = 16
    AT = 32
    MARK = 64  # all others
    LETTER = CAPITAL | SMALL
    WORD = LETTER | DIGIT

cdef enum:
    BITS = 18  # of a hash of a word

cdef Py_ssize_t LONGEST_WORD = 24  # in addresses
cdef unsigned char CLASSES[128]
cdef signed char SIX[128]  # these have the number of each digit of codes, -1 for what is none
cdef signed char FIVE[128]
cdef signed char FOUR[128]


def _fill():
    cdef int each, place
    for each in range(128):
        letter = chr(each)
        CLASSES[each] = (
            CAPITAL if letter.isupper()
            else SMALL if letter.islower()
            else DIGIT if letter.isdigit()
            else LINE if letter in "-_"
            else COLON if letter == ":"
            else AT if letter == "@"
            else MARK
        )
        SIX[each] = FIVE[each] = FOUR[each] = -1
    for place, each in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):
        SIX[each] = place
    for place, each in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"):
        FIVE[each] = FIVE[each | 0x20] = place
    for place, each in enumerate(b"0123456789ABCDEF"):
        FOUR[each] = FOUR[each | 0x20] = place


_fill()


cdef inline unsigned char _at(Text text, Py_ssize_t at) noexcept:
    """The character, 0 where there is none."""
    return text.chars[at] & 127 if 0 <= at < text.size else 0


cdef inline unsigned char _class(Text text, Py_ssize_t at) noexcept:
    return CLASSES[_at(text, at)]


cdef inline Py_ssize_t _after(Text text, Py_ssize_t at, int wanted, Py_ssize_t most) noexcept:
    """What comes after so many characters of these classes at most."""
    cdef Py_ssize_t last = min(at + most, text.size)
    while at < last and _class(text, at) & wanted:
        at += 1
    return at


cdef int _classes_of(Text text) noexcept:
    cdef int found = 0
    cdef Py_ssize_t at
    for at in range(text.size):
        found |= _class(text, at)
    return found


cdef Py_ssize_t _after_label(Text text, Py_ssize_t at) noexcept:
    """After one or two words of a host's name; -1 where there are none."""
    cdef Py_ssize_t end = _after(text, at, WORD, LONGEST_WORD), second
    if end == at:
        return -1
    if _at(text, end) == 45:  # -
        second = _after(text, end + 1, WORD, LONGEST_WORD)
        return second if second > end + 1 else end
    return end


cdef Py_ssize_t _after_host(Text text, Py_ssize_t at) noexcept:
    """After two to four labels; -1 where there are none."""
    cdef Py_ssize_t end = _after_label(text, at), following
    cdef int labels = 1
    while end >= 0 and labels < 4 and _at(text, end) == 46:  # .
        following = _after_label(text, end + 1)
        if following < 0:
            break
        end = following
        labels += 1
    return end if labels > 1 else -1


cdef bint _is_mail(Text text) noexcept:
    cdef Py_ssize_t at = _after(text, 0, WORD, LONGEST_WORD), end
    if at == 0:
        return False
    if _class(text, at) & LINE or _at(text, at) == 46 or _at(text, at) == 43:  # . +
        end = _after(text, at + 1, WORD, LONGEST_WORD)
        if end == at + 1:
            return False
        at = end
    return _at(text, at) == 64 and _after_host(text, at + 1) == text.size


cdef Py_ssize_t _after_scheme(Text text) noexcept:
    """After ``http://``; -1 where that does not stand."""
    cdef const unsigned char* wanted = b"http"
    cdef Py_ssize_t at
    for at in range(4):
        if _at(text, at) != wanted[at]:
            return -1
    at = 5 if _at(text, 4) == 115 else 4  # s
    return at + 3 if _at(text, at) == 58 and _at(text, at + 1) == 47 and _at(text, at + 2) == 47 else -1


cdef bint _is_link(Text text) noexcept:
    cdef Py_ssize_t at = _after_scheme(text), end
    cdef int words
    at = _after_host(text, at) if at >= 0 else -1
    if at < 0:
        return False
    if _at(text, at) == 58:  # :
        end = _after(text, at + 1, DIGIT, 5)
        if end == at + 1:
            return False
        at = end
    for words in range(3):
        if not (_class(text, at) & LINE or _at(text, at) == 46 or _at(text, at) == 47):  # . /
            break
        end = _after(text, at + 1, WORD, LONGEST_WORD)
        if end == at + 1:
            break
        at = end
    return at + (_at(text, at) == 47) == text.size


cdef bint _is_counted(Text text) noexcept:
    """Whether it is a number with up to three letters before it."""
    cdef Py_ssize_t at = _after(text, 0, LETTER, 3), end
    at = _after(text, at, LINE, 1)
    end = _after(text, at, DIGIT, 17)
    return end > at and end == text.size


cdef bint _is_striped(Text text) noexcept:
    """Whether at most four others stand between its digits, of which there are at least three."""
    cdef Py_ssize_t at
    cdef int digits = 0, others = 0, kind
    for at in range(text.size):
        kind = _class(text, at)
        if kind & DIGIT:
            digits += 1
            others = 0
        elif kind & (LETTER | LINE) and others < 4:
            others += 1
        else:
            return False
    return 3 <= digits <= 20


cdef inline bint _is_of_time(unsigned char each) noexcept:
    return 48 <= each <= 58 or each == 46 or each == 44  # . ,


cdef bint _is_date(Text text) noexcept:
    cdef Py_ssize_t at, first
    cdef unsigned char each
    for at in range(10):
        each = _at(text, at)
        if (each != 45) if at == 4 or at == 7 else not 48 <= each <= 57:
            return False
    if _at(text, 10) != 84 and _at(text, 10) != 32:  # T
        return False
    at = 11
    while at < 31 and _is_of_time(_at(text, at)):
        at += 1
    if at < 15:
        return False
    if at == text.size:
        return True
    if _at(text, at) == 90:  # Z
        return at + 1 == text.size
    if _at(text, at) == 85:  # UTC
        return _at(text, at + 1) == 84 and _at(text, at + 2) == 67 and at + 3 == text.size
    at += _at(text, at) == 32
    if _at(text, at) != 43 and _at(text, at) != 45:  # + -
        return False
    first = at = at + 1
    while 48 <= _at(text, at) <= 58:
        at += 1
    return 2 <= at - first <= 6 and at == text.size


cdef bint _is_uuid(Text text) noexcept:
    cdef Py_ssize_t at
    if text.size != 36:
        return False
    for at in range(36):
        if at == 8 or at == 13 or at == 18 or at == 23:
            if _at(text, at) != 45:
                return False
        elif FOUR[_at(text, at)] < 0:
            return False
    return True


cdef Py_ssize_t _after_name(Text text, Py_ssize_t at, Py_ssize_t least) noexcept:
    """After a capital and so many small letters or more; -1 where they do not stand."""
    cdef Py_ssize_t end
    if not _class(text, at) & CAPITAL:
        return -1
    end = _after(text, at + 1, SMALL, 14)
    return end if end - at > least else -1


cdef bint _is_names(Text text) noexcept:
    """Two capitals, one or two words in small letters, or up to three names behind a number."""
    cdef Py_ssize_t at, end
    cdef int names
    if text.size == 2 and _class(text, 0) & _class(text, 1) & CAPITAL:
        return True
    if _class(text, 0) & SMALL:
        at = _after(text, 0, SMALL, 10)
        if at < 3 or at == text.size:
            return at >= 3
        end = _after(text, at + 1, SMALL, 10)
        return _class(text, at) & LINE and end - at > 3 and end == text.size
    at = _after(text, 0, DIGIT, 6)
    if at:
        if _at(text, at) != 32:
            return False
        at += 1
    at = _after_name(text, at, 2)
    for names in range(2):
        if at < 0 or at == text.size:
            break
        end = at
        while end < at + 3 and _at(text, end) in (32, 38, 39, 45):  # & ' -
            end += 1
        at = _after_name(text, end, 1) if end > at else -1
    return at == text.size


cdef bint _is_title(Text text) noexcept:
    """`str.istitle`."""
    cdef Py_ssize_t at
    cdef int kind
    cdef bint inside = False, cased = False
    for at in range(text.size):
        kind = _class(text, at)
        if kind & LETTER:
            if inside == ((kind & CAPITAL) != 0):
                return False
            cased = True
        inside = (kind & LETTER) != 0
    return cased


cdef bint _takes_turns(Text text) noexcept:
    """Whether at most eight small letters stand between capitals and digits, of which there are at least five."""
    cdef Py_ssize_t at
    cdef int others = 0, small = 0, kind
    for at in range(text.size):
        kind = _class(text, at)
        if kind & (CAPITAL | DIGIT):
            others += 1
            small = 0
        elif kind & SMALL and small < 8:
            small += 1
        else:
            return False
    return others >= 5


cdef bint _may_be_text(Text text, Py_ssize_t size, const signed char* digits, int bits) noexcept:
    """Whether its first digits of so many bits could be UTF-8: what must follow what. What is none of them is no
    code."""
    cdef Py_ssize_t at
    cdef int value, have = 0, behind = 0
    cdef unsigned int held = 0, each
    for at in range(size):
        value = digits[_at(text, at)]
        if value < 0:
            return False
        held = (held << bits | value) & 0xFFFF
        have += bits
        if have < 8:
            continue
        have -= 8
        each = held >> have & 0xFF
        if behind:
            if each >> 6 != 2:
                return False
            behind -= 1
        elif each >= 0x80:
            if not 0xC2 <= each <= 0xF4:
                return False
            behind = 1 + (each >= 0xE0) + (each >= 0xF0)
    return behind == 0


cdef bint _may_be_coded(Text text, int classes) noexcept:
    """Whether it could be a text in base64, base 16 or base32."""
    cdef Py_ssize_t size = text.size
    if _may_be_text(text, size - (size % 4 == 1), SIX, 6) or _may_be_text(text, size // 2 * 2, FOUR, 4):
        return True
    return classes & LETTER != LETTER and _may_be_text(text, size // 8 * 8, FIVE, 5)


cdef inline unsigned int _hash(unsigned int before, unsigned char each) noexcept:
    return (before ^ each) * <unsigned int>16777619


cdef inline bint _is_in(const unsigned char[::1] bits, unsigned int which) except -1:
    return bits[which >> 3] >> (which & 7) & 1


cdef object _set_of(words):
    """A bit for the hash of each word."""
    found = bytearray(1 << BITS - 3)
    cdef unsigned char[::1] bits = found
    cdef unsigned int value
    for word in words:
        value = 0
        for each in word.encode():
            value = _hash(value, each)
        value >>= 32 - BITS
        bits[value >> 3] |= 1 << (value & 7)
    return found


cdef class Silence:
    """The quick look at a record."""

    cdef Py_ssize_t longest, number, id_longest, accented_longest, own_id, name_longest, most, most_said
    cdef int nested, anchor
    cdef object memory, is_mixed
    cdef const unsigned char[::1] folded  # letters that digits stand for
    cdef const unsigned char[::1] words, prefixes, telling

    def __init__(self, bounds, words, prefixes, telling, folded, silent, is_mixed):
        """``bounds``: characters of a text that is looked at, of a value without letters, of an id, of a name with
        accents, of a record's own id and of a field's name; how deep a record is nested, how many of its values say
        something, and of how many characters. ``words`` have a kind, and what begins with ``prefixes``; ``telling``
        are looked for in ids, with ``folded`` letters. ``silent`` and ``is_mixed`` are those of `wordless`."""
        (self.longest, self.number, self.id_longest, self.accented_longest, self.own_id, self.name_longest,
         self.nested, self.most, self.most_said) = bounds
        self.memory, self.is_mixed = silent, is_mixed
        self.folded = folded
        self.words = _set_of(words)
        self.prefixes = _set_of(prefixes)
        self.telling = _set_of([word[:3] for word in telling])
        self.anchor = min([len(each) for each in prefixes], default=1)
        if min([len(each) for each in telling], default=3) < 3:
            raise ValueError("a telling word has three letters")

    def said(self, dict record not None):
        """The texts of a record in which something could be said; None where it takes a closer look."""
        cdef list said = []
        cdef Py_ssize_t size = 0
        if not self._look_into(record, said, self.nested) or len(said) > self.most:
            return None
        for each in said:
            size += len(<str>each)
        return said if size <= self.most_said else None

    cdef bint _look_into(self, dict record, list said, int depth) except -1:
        for name, value in record.items():
            if not _is_usual(name if type(name) is str else str.__str__(name), self.name_longest):
                return False
            if type(value) is str:
                if depth == self.nested and name == "id" and self._is_id(<str>value):
                    continue
                if not self._says_nothing(<str>value):
                    said.append(value)
            elif not _is_of_silent_kind(value) and not self._is_plain(value, said, depth):
                return False
        return True

    cdef bint _is_plain(self, value, list said, int depth) except -1:
        """Whether a value that is neither a text nor a number is one of JSON, and not nested too deep."""
        if not depth:
            return False
        if type(value) is dict:
            return self._look_into(<dict>value, said, depth - 1)
        if type(value) is not list:
            return False
        for each in <list>value:
            if type(each) is dict:
                if depth < 2 or not self._look_into(<dict>each, said, depth - 2):
                    return False
            elif type(each) is str:
                if not self._says_nothing(<str>each):
                    said.append(each)
            elif not _is_of_silent_kind(each) and not self._is_plain(each, said, depth - 1):
                return False
        return True

    cdef bint _is_id(self, str value):
        """Whether it is a record's own id."""
        cdef Text text
        if not 0 < len(value) <= self.own_id or PyUnicode_MAX_CHAR_VALUE(value) > 127:
            return False
        text.chars, text.size = PyUnicode_1BYTE_DATA(value), len(value)
        return not _classes_of(text) & ~WORD

    def silent(self, str value not None):
        """`wordless.SILENT` of a text."""
        return self._says_nothing(value)

    cdef bint _says_nothing(self, str value) except -1:
        cdef Text text
        cdef int classes
        if len(value) > self.longest:
            return False
        if PyUnicode_MAX_CHAR_VALUE(value) > 127:
            return len(value) <= self.accented_longest and _may_be_name(value) and self.memory[value]
        text.chars, text.size = PyUnicode_1BYTE_DATA(value), len(value)
        classes = _classes_of(text)
        if classes & AT or (classes & COLON and "://" in value):
            return self._is_wordless(value, text, classes)
        if not _class(text, text.size - 1) & LETTER and self._is_wordless(value, text, classes):
            return True
        if text.size >= 12 and not classes & ~WORD and not _is_title(text):
            return self._is_drawn(value, text, classes)
        if _is_names(text):
            return not self._may_have_kind(text) or self.memory[value]
        return self._is_wordless(value, text, classes)

    def wordless(self, str value not None):
        """`wordless.is_wordless`."""
        cdef Text text
        if len(value) > self.longest or PyUnicode_MAX_CHAR_VALUE(value) > 127:
            return False
        text.chars, text.size = PyUnicode_1BYTE_DATA(value), len(value)
        return self._is_wordless(value, text, _classes_of(text))

    cdef bint _is_wordless(self, str value, Text text, int classes) except -1:
        """The same of a text in ASCII with these classes of characters."""
        if classes & AT:
            return _is_mail(text)
        if classes & COLON and "://" in value:
            return _is_link(text)
        if not classes & LETTER:
            if text.size <= self.number:
                return True
        elif not classes & ~LETTER:
            return False
        if text.size <= self.id_longest and (_is_counted(text) or _is_striped(text)):
            return True
        return _is_date(text) or _is_uuid(text)

    cdef bint _is_drawn(self, str value, Text text, int classes) except -1:
        """`wordless._is_mixed`: it is asked where something could be said or coded."""
        if not 12 <= text.size <= 36 or not _takes_turns(text):
            return False
        if self._may_tell(text) or _may_be_coded(text, classes):
            return self.is_mixed(value)
        return True

    cdef bint _may_tell(self, Text text) except -1:
        """Whether three letters stand there with which a word begins that attacks need."""
        cdef Py_ssize_t at
        cdef unsigned int value
        for at in range(text.size - 2):
            value = _hash(0, self.folded[_at(text, at)])
            value = _hash(value, self.folded[_at(text, at + 1)])
            value = _hash(value, self.folded[_at(text, at + 2)])
            if _is_in(self.telling, value >> 32 - BITS):
                return True
        return False

    cdef bint _may_have_kind(self, Text text) except -1:
        """Whether a word of a name may have a kind, by its hash, or by that of what it begins with."""
        cdef Py_ssize_t at
        cdef unsigned int value = 0
        cdef int long_ = 0
        for at in range(text.size):
            if _class(text, at) & WORD:
                value = _hash(value, _at(text, at) | 0x20)
                long_ += 1
                if long_ >= self.anchor and _is_in(self.prefixes, value >> 32 - BITS):
                    return True
            else:
                if long_ and _is_in(self.words, value >> 32 - BITS):
                    return True
                value = 0
                long_ = 0
        return long_ > 0 and _is_in(self.words, value >> 32 - BITS)


cdef bint _is_usual(str name, Py_ssize_t longest) except -1:
    """`intake.is_usual`."""
    cdef Py_UCS4 each
    if len(name) > longest:
        return False
    for each in name:
        if not 0x20 < each < 0x250 or 0x7E < each < 0xA1 or each == 0xAD:
            return False
    return True


cdef inline bint _is_of_silent_kind(value):
    kind = type(value)
    return kind is int or kind is float or kind is bool or value is None


cdef bint _may_be_name(str value):
    """Whether it has Latin letters only, with accents or without, and what stands between names."""
    cdef Py_UCS4 each
    for each in value:
        if not (
            65 <= each <= 90 or 97 <= each <= 122 or 0xC0 <= each <= 0x24F
            or each == 32 or each == 38 or each == 39 or each == 45
        ):
            return False
    return True
