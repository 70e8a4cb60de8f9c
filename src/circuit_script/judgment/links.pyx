# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The loops over every character of links, compiled.

Each says what `exfil` says in Python, which is what this was written from and what is used where there is no compiler.
Texts come from strangers, so every access is checked, and what is read again is bounded. Nothing is kept from text to
text.
"""

cdef frozenset SCHEMES = frozenset({
    "http", "https", "ftp", "gopher", "dict", "ldap", "jar", "file", "php", "sftp", "smb", "ws", "wss",
})
cdef tuple RARE = ("gopher", "dict", "ldap", "jar", "php", "smb")
cdef Py_ssize_t LONG_SCHEME = 6

cdef enum:  # what a text has
    SCHEMED = 1
    CODED = 2
    MAILED = 4
    WORDED = 8
    PLACED = 16


cdef inline bint _is_letter(Py_UCS4 each):
    return 97 <= each <= 122 or 65 <= each <= 90


cdef inline bint _is_blank(Py_UCS4 each, bint vertical):
    """A space of ASCII; one of them only where it is asked for."""
    return each == 32 or each == 9 or each == 10 or each == 12 or each == 13 or each == 11 and vertical


cdef inline bint _ends(Py_UCS4 each):
    """Whether a link ends before this sign, if no place for data begins with it."""
    if each > 127:
        return False
    return each in u" \t\n\v\f\r\"'<>()[]{}`|\\"


cdef inline Py_UCS4 _at(str text, Py_ssize_t at, Py_ssize_t last):
    return text[at] if at < last else 0


cdef bint _stands(str said, Py_ssize_t end, str word) except -1:
    """Whether a word in small letters ends there."""
    cdef Py_ssize_t at = end - len(word)
    cdef Py_UCS4 each
    if at < 0:
        return False
    for each in word:
        if said[at] != each:
            return False
        at += 1
    return True


cdef bint _is_known(str said, Py_ssize_t at) except -1:
    """Whether a scheme ends there that is known, in letters of any case."""
    if at < 2 or said[at - 1] not in u"bprsteBPRSTE":  # the last letters of all of them
        return False
    cdef str before = said[max(0, at - LONG_SCHEME):at].lower()
    for scheme in SCHEMES:
        if before.endswith(scheme):
            return True
    return False


cdef int _before(str said, Py_ssize_t at) except -1:
    """What a text has that has this colon."""
    cdef Py_UCS4 last = said[at - 1] if at else 0
    if last == u"t":
        return CODED * _stands(said, at, "script")
    if last == u"a":
        return CODED * _stands(said, at, "data")
    if last == u"e":
        return CODED * _stands(said, at, "file")
    return MAILED * _stands(said, at, "mailto") if last == u"o" else 0


def signs(str said not None):
    """`exfil._signs_of`."""
    cdef int found = 0
    cdef Py_ssize_t at = 0, size = len(said)
    cdef Py_UCS4 each
    for each in said:
        if each == u":":
            found |= _before(said, at)
            if at + 2 < size and said[at + 1] == u"/" and said[at + 2] == u"/":
                if not found & SCHEMED and _is_known(said, at):
                    found |= SCHEMED
                if not found & CODED and at > 1 and said[at - 2] in u"ecahm":  # the last letter but one of a rare one
                    for rare in RARE:
                        found |= CODED * _stands(said, at, rare)
        elif each == u"]":
            if at + 1 < size and said[at + 1] == u"(":
                found |= WORDED
        elif each == u"{" or each == u"[" or each == u"<":
            found |= PLACED
        elif each == u"%":
            if at + 2 < size and said[at + 1] == u"7" and said[at + 2] == u"b":
                found |= PLACED
        at += 1
    return found


def flat(str said not None):
    """`exfil._flat`."""
    if said.isascii():
        return said
    cdef bytearray told = bytearray(len(said))
    cdef Py_ssize_t at = 0
    cdef Py_UCS4 each
    for each in said:
        if each == 0x17F or each == 0x212A:
            return said
        told[at] = <unsigned char>each if each < 127 else 127
        at += 1
    return told.decode("ascii")


cdef Py_ssize_t _run(str text, Py_ssize_t at, Py_ssize_t last, Py_ssize_t most, int kind, bint vertical) except -2:
    """Where so many characters end that may stand in a place for data of this kind; -1 for none or more."""
    cdef Py_ssize_t first = at
    cdef Py_UCS4 each
    while at < last and at - first <= most:
        each = text[at]
        if kind == 0:
            if each == u"{" or each == u"}":
                break
        elif kind == 1:
            if each == u"[" or each == u"]" or each == u"\n" or each == u"(" or each == u")":
                break
        elif kind == 2:
            if not _is_letter(each) and each != u"_" and each != u" " and each != u"-":
                break
        elif each == u"%" or _is_blank(each, vertical):
            break
        at += 1
    return at if 0 < at - first <= most else -1


cdef bint _braced(str text, Py_ssize_t at, Py_ssize_t last, Py_UCS4 letter) except -1:
    """Whether two braces stand there as a link writes them: this letter says which."""
    cdef Py_ssize_t nth
    cdef Py_UCS4 each
    if at + 6 > last:
        return False
    for nth in range(at, at + 6, 3):
        each = text[nth + 2]
        if text[nth] != u"%" or text[nth + 1] != u"7" or <int>each != <int>letter and <int>each + 32 != <int>letter:
            return False
    return True


cdef Py_ssize_t _slot(str text, Py_ssize_t at, Py_ssize_t last, bint vertical) except -2:
    """Where the place for data ends that begins there; -1 for none."""
    cdef Py_UCS4 each = _at(text, at, last)
    cdef Py_ssize_t end
    if each == u"{" and _at(text, at + 1, last) == u"{":
        end = _run(text, at + 2, last, 80, 0, vertical)
        return end + 2 if end > 0 and _at(text, end, last) == u"}" and _at(text, end + 1, last) == u"}" else -1
    if each == u"$" and _at(text, at + 1, last) == u"{":
        at += 1
        each = u"{"
    if each == u"{":
        end = _run(text, at + 1, last, 60, 0, vertical)
        return end + 1 if end > 0 and _at(text, end, last) == u"}" else -1
    if each == u"[":
        end = _run(text, at + 1, last, 60, 1, vertical)
        return end + 1 if end > 0 and _at(text, end, last) == u"]" else -1
    if each == u"<" and _is_letter(_at(text, at + 1, last)):
        end = _run(text, at + 2, last, 60, 2, vertical)
        return end + 1 if end > 0 and _at(text, end, last) == u">" else -1
    if each == u"%" and _braced(text, at, last, u"b"):
        end = _run(text, at + 6, last, 60, 3, vertical)
        return end + 6 if end > 0 and _braced(text, end, last, u"d") else -1
    return -1


cdef bint _goes_to(str said, Py_ssize_t at, Py_ssize_t last) except -1:
    return at + 3 <= last and said[at] == u":" and said[at + 1] == u"/" and said[at + 2] == u"/"


def before_slots(str said not None, str flat not None, Py_ssize_t most, Py_ssize_t longest):
    """`exfil._before_slots`."""
    cdef list found = []
    cdef Py_ssize_t place = 0, size = len(flat), end, at = -1, done = -1, last, each
    cdef Py_UCS4 sign
    while place < size and most:
        sign = flat[place]
        end = _slot(flat, place + 1, size, False) if sign < 128 and sign in u"/=&?#.+_-" else -1
        if end < 0:
            place += 1
            continue
        most -= 1
        last = at
        if place > 1 and _goes_to(said, place - 2, size):
            at = place - 2
        else:
            each = place - 2
            while each >= 0 and each >= done and each >= place - longest and not _goes_to(said, each, place + 1):
                each -= 1
            if each >= 0 and each >= done and each >= place - longest:
                at = max(at, each)
        done = place - 1
        if at != last and not _has_space(said, at, place + 1):
            found.append(at)
        place = end
    return found


cdef bint _has_space(str said, Py_ssize_t at, Py_ssize_t last) except -1:
    while at < last:
        if said[at].isspace():
            return True
        at += 1
    return False


cdef Py_ssize_t _begin(str said, Py_ssize_t at) except -1:
    """`exfil._begin`."""
    cdef Py_ssize_t start = at - (5 if at and said[at - 1] == u"s" else 4)
    if (start > 0 and said[start] == u"h" and said[start + 1] == u"t" and said[start + 2] == u"t"
            and said[start + 3] == u"p" and not said[start - 1].isalpha()):
        return start
    start = at
    while start > 0 and at - start < LONG_SCHEME and said[start - 1].isalpha():
        start -= 1
    return start


def link(str said not None, Py_ssize_t at, Py_ssize_t longest):
    """Where the link begins whose "://" stands there, where the rest of it does, and where it ends; twice -1 for the
    two if it has no scheme that is known, or nothing follows."""
    cdef Py_ssize_t start, last, end, path = -1, slot
    cdef Py_UCS4 each
    start = _begin(said, at)
    last = min(len(said), start + longest)
    if not _goes_to(said, at, last) or said[start:at].lower() not in SCHEMES:
        return start, -1, -1
    end = at + 3
    while end < last:
        each = said[end]
        if path == -1 and (each == u"/" or each == u"?" or each == u"#"):
            path = end
        if each != u"%" and not _ends(each):
            end += 1
            continue
        if path == -1:
            path = -2 - end  # the host may go on behind this sign
        slot = _slot(said, end, last, True)
        if slot < 0 and each != u"%":
            break
        end = slot if slot >= 0 else end + 1
    if end == at + 3:
        return start, -1, -1
    if path < -1:
        path = -2 - path
        while path < end and said[path] != u"/" and said[path] != u"?" and said[path] != u"#" and said[path] != u"\\":
            path += 1
    return start, path if path >= 0 else end, end


def begun(str said not None, Py_ssize_t start):
    """Where the first link from there on begins, with a scheme that is known and something behind it; the text's end if
    there is none."""
    cdef Py_ssize_t at = said.find("://", start), size = len(said), first
    while at >= 0:
        first = at
        while first > start and at - first < LONG_SCHEME and _is_letter(said[first - 1]):
            first -= 1
        if (at + 3 < size and (first == 0 or not _is_of_word(said[first - 1])) and said[first:at].lower() in SCHEMES
                and (not _ends(said[at + 3]) or _slot(said, at + 3, size, True) >= 0)):
            return first
        at = said.find("://", at + 3)
    return size


cdef inline bint _is_of_word(Py_UCS4 each):
    return _is_letter(each) or 48 <= each <= 57 or each == u"_"


def random(str label not None):
    """`exfil._random`."""
    cdef Py_ssize_t size = len(label), hyphens = 0, vowels = 0, numbers = 0
    cdef Py_UCS4 each
    if not 40 <= size <= 63:
        return False
    for each in label:
        if each == u"-":
            hyphens += 1
        elif 48 <= each <= 57:
            numbers += 1
        elif each == u"a" or each == u"e" or each == u"i" or each == u"o" or each == u"u":
            vowels += 1
        elif not _is_letter(each) and each not in u"+/=_\u017f\u212a":
            return False
    return hyphens < 3 and (5 * vowels < size or numbers >= 5)
