# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The loops of `mosaic` over every character of a text, compiled: which signs it has, what comes again, quotes with a
name, and where signs of code stand dense.

Each says what `mosaic` says in Python, which is what this was written from and what is used where there is no compiler.
Texts come from strangers, so every access to a character is checked. Nothing is kept from text to text.
"""

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_FindChar(object text, Py_UCS4 each, Py_ssize_t start, Py_ssize_t end, int direction) except -2

ctypedef (Py_ssize_t, Py_ssize_t, Py_ssize_t) Name  # where what names a quote begins, and from where to where the name is

cdef int COLONS = 1, QUOTES = 2, EMPTY = 4, CODE = 8  # as in `mosaic`
cdef int LABELS = 9  # colons that labels which take turns have at least
cdef int SPACES = 64, LINES = 30  # of what is empty
cdef int WINDOW = 100, SIGNS = 14, RARE = 7  # characters of a suffix, its signs of code, and their kinds in the text
cdef int LINE = 24, COLON = 25, QUOTE = 26, APOSTROPHE = 27, SIGN = 28, TICK = 29

# Of each character what it is here: up to 22 a sign of code that is rare in prose, by its number; 0 is any other.
cdef unsigned char[128] SORTS
cdef unsigned char[128] IS_CODE
cdef set NUMBERS = {"one", "two", "three", "four", "five", "a", "b", "c", "d", "e", "f"}
cdef set VERBS = {"is", "be", "are", "equals", "contains", "says", "means", "as"}


def _fill(rare, signs):
    for each in signs:
        IS_CODE[ord(each)], SORTS[ord(each)] = 1, SIGN
    for nth, each in enumerate(rare, 1):
        SORTS[ord(each)] = nth
    SORTS[ord("`")] = TICK
    SORTS[ord(":")], SORTS[ord('"')] = COLON, QUOTE
    SORTS[ord("\n")], SORTS[ord("'")] = LINE, APOSTROPHE


_fill("[]{}\\*+=<>|~^#$%&@!;`", '[]{}()\\*+=<>|~^`#$%&@!?_/;:"')


ctypedef fused Text:  # what is in ASCII is read as bytes, which takes half the time
    str
    bytes


def signs(str text not None):
    """`mosaic._signs`."""
    return _signs[bytes](text.encode()) if text.isascii() else _signs[str](text)


cdef int _signs(Text text) except -1:
    cdef Py_ssize_t at = -1, line = -3, lines = 0, chain = 0, all_lines = 0
    cdef Py_ssize_t colons = 0, double = 0, single = 0, curly = 0, ticks = 0, nth = 0
    cdef Py_ssize_t[14] last  # the places of so many signs of code
    cdef Py_UCS4 char, before = 0
    cdef unsigned int rare = 0
    cdef bint named = False, high = False, dense = False
    cdef int sort, said = 0
    for nth in range(SIGNS):
        last[nth] = -WINDOW
    nth = 0
    for char in text:
        at += 1
        if char < 128:
            sort = SORTS[char]
            if sort == 0:
                before = char
                continue
        elif char < 256:
            before = char
            continue
        else:
            sort = SIGN
            if char == 0xFF1A:
                colons += 1
            elif char == 0x201C:
                curly += 1
        if sort == LINE:
            all_lines += 1
            lines = lines + 1 if at == line + 1 else 1
            chain = chain + 1 if at == line + 2 and before == 32 else 1
            line = at
            if lines == 4 or chain == 3:
                high = True
        elif sort == APOSTROPHE:
            single += 1
            if before == 32 or before == 61:
                named = True
        else:
            if sort == COLON:
                colons += 1
            elif sort == QUOTE:
                double += 1
            elif sort == TICK:
                ticks += 1
                rare |= 1
            elif sort != SIGN:
                rare |= 1U << sort
            if not dense:
                last[nth] = at
                nth = nth + 1 if nth < SIGNS - 1 else 0
                dense = last[nth] >= 0 and at - last[nth] < WINDOW
        before = char
    if colons >= LABELS:
        said |= COLONS
    if double >= 4 or curly >= 2 or ticks >= 4 or named and single >= 4:
        said |= QUOTES
    if high and all_lines >= LINES or _is_wide(text):
        said |= EMPTY
    if dense and len(text) >= WINDOW and _bits(rare) >= RARE:
        said |= CODE
    return said


cdef bint _is_wide(Text text) except -1:
    """Whether so many spaces stand together: one of so many places is among them."""
    cdef Py_ssize_t at, first, end, size = len(text)
    for at in range(SPACES - 1, size, SPACES):
        if text[at] == 32:
            first, end = at, at + 1
            while first and text[first - 1] == 32:
                first -= 1
            while end < size and text[end] == 32:
                end += 1
            if end - first >= SPACES:
                return True
    return False


cdef int _bits(unsigned int some):
    cdef int count = 0
    while some:
        some &= some - 1
        count += 1
    return count


def quoted(str text not None):
    """`mosaic._has_quotes`."""
    if _has(text, u'"', 4) or _has(text, u"\u201c", 2) or _has(text, u"`", 4):
        return True
    return _has(text, u"'", 4) and (" '" in text or "='" in text)


cdef bint _has(str text, Py_UCS4 each, int times) except -1:
    """Whether a text has a character so often."""
    cdef Py_ssize_t at = -1
    for _ in range(times):
        at = _next(text, each, at + 1)
        if at < 0:
            return False
    return True


def floods(str text not None, Py_ssize_t step, Py_ssize_t piece, Py_ssize_t far, Py_ssize_t least):
    """`mosaic._floods`."""
    cdef Py_ssize_t size = len(text), place, until = 0, period, start, end
    cdef list found = []
    for place in range(0, size - piece, step):
        if place < until:
            continue
        period = text.find(text[place : place + piece], place + 1, place + far + piece) - place
        if period < 0:
            continue
        end = place
        while end + period < size and text[end] == text[end + period]:
            end += 1
        until = end + period
        if until < least:
            continue
        start = place
        while start and text[start - 1] == text[start + period - 1]:
            start -= 1
        if until - start >= max(least, 6 * period):
            found.append((start, until, period))
    return found


def densest(str text not None):
    """`mosaic._densest_of`."""
    return _densest[bytes](text.encode()) if text.isascii() else _densest[str](text)


cdef (Py_ssize_t, Py_ssize_t, Py_ssize_t) _densest(Text text) except *:
    cdef Py_ssize_t at = 0, best = 0, count = 0, most = 0
    cdef Py_UCS4 char
    for char in text:
        at += 1
        count += _is_code(char)
        if at > WINDOW:
            count -= _is_code(text[at - WINDOW - 1])
        if at >= WINDOW and count > most:
            most, best = count, at - WINDOW
    return best, most, count


cdef inline int _is_code(Py_UCS4 char):
    return IS_CODE[char] if char < 128 else char > 255


def second(str text not None):
    """Whether a second piece is there: its label, and soon after it a quote."""
    cdef Py_ssize_t double = _next(text, u'"', 0), curly = _next(text, u"\u201c", 0), at, first
    cdef Py_UCS4 each
    while double >= 0 or curly >= 0:
        if curly < 0 or 0 <= double < curly:
            at = double
            double = _next(text, u'"', at + 1)
        else:
            at = curly
            curly = _next(text, u"\u201c", at + 1)
        for first in range(at - 2, max(at - 15, -1), -1):
            each = text[first + 1]
            if _is_blank(each) or each == u"=" or each == u":" or each == u",":
                if text[first] == u"b" or text[first] == u"B" or text[first] == u"2":
                    return True
            if _is_quote(each) or each == u"\n":
                break
    return False


cdef inline Py_ssize_t _next(str text, Py_UCS4 each, Py_ssize_t start) except -2:
    """Where a character stands next, -1 if it does not."""
    return PyUnicode_FindChar(text, each, start, len(text), 1)


def torn(str text not None, Py_ssize_t most, Py_ssize_t longest, label):
    """`mosaic._pieces_of`; ``label`` finds that of a piece in what stands before its quote."""
    cdef Py_ssize_t start, close, begin, end = 0, first = 0, closed = 0, last = 0
    cdef Py_ssize_t double = _next(text, u'"', 0), curly = _next(text, u"\u201c", 0)
    cdef list pieces = []
    cdef str said
    for _ in range(most):
        if 0 <= double < end:
            double = _next(text, u'"', end)
        if 0 <= curly < end:
            curly = _next(text, u"\u201c", end)
        start = curly if double < 0 or 0 <= curly < double else double
        if start < 0 or last == 8:
            break
        close = min(start + longest, len(text))
        close = PyUnicode_FindChar(text, u'"' if start == double else u"\u201d", start + 1, close, 1)
        if close < 0:
            break
        begin = max(start - 30, end)
        end = close + 1
        if close - start == 1 or not _has_sign(text, max(begin, 0), start, <unsigned int>last + 1):
            continue
        found = label(text[max(begin, 0) : start])
        if found is None or (ord(found[1].lower()) - 96 if found[1] else int(found[2])) != last + 1:
            continue
        said = text[start + 1 : close]
        if last and not (said[0] == u" " or said[0].islower()):
            return [], 0, 0
        if not last:
            first = max(start - 30, 0)
        pieces.append(said)
        last += 1
        closed = end
    return pieces, first, closed


cdef bint _has_sign(str text, Py_ssize_t at, Py_ssize_t end, unsigned int nth) except -1:
    """Whether the letter or the digit of a piece is there, and something behind it."""
    cdef Py_UCS4 each
    for at in range(at, end - 1):
        each = text[at]
        if <unsigned int>each in (0x60 + nth, 0x40 + nth, 0x30 + nth):
            each = text[at + 1]
            if each.isspace() or each == u"=" or each == u":" or each == u",":
                return True
    return False


def named(str text not None, Py_ssize_t most, Py_ssize_t longest):
    """`mosaic._named`."""
    cdef Py_ssize_t at = -1, close, first = -1, end = 0, line = -1, far = len(text) + 2 * longest
    cdef Py_ssize_t double = -1, single = -1, curly = -1, tick = -1
    cdef Py_UCS4 char, before = 0, previous
    cdef Name name
    cdef dict pieces = {}
    for char in text:
        at += 1
        previous, before = before, char
        if not _is_quote(char) or at < end:
            continue
        if not (previous == u"=" or previous == u":" or previous == u">" or _is_blank(previous)):
            continue
        name = _name(text, at)
        if name[0] < 0:
            continue
        if char == u'"':
            close = double = _closing(text, char, at, double, far)
        elif char == u"'":
            close = single = _closing(text, char, at, single, far)
        elif char == u"`":
            close = tick = _closing(text, char, at, tick, far)
        else:
            close = curly = _closing(text, u"\u201d", at, curly, far)
        if not 1 < close - at <= longest + 1:
            continue
        if line <= at:
            line = _closing(text, u"\n", at, -1, far)
        if line < close:
            continue
        said = text[name[1] : name[2]].lower()
        if said in pieces:
            said = f"{said}#{len(pieces)}"
        if said not in pieces:
            pieces[said] = text[at + 1 : close]
        if first < 0:
            first = name[0]
        end = close + 1
        if len(pieces) >= most:
            break
    return pieces, (first, end)


cdef Py_ssize_t _closing(str text, Py_UCS4 each, Py_ssize_t at, Py_ssize_t known, Py_ssize_t far) except -2:
    """Where a character stands next, which is known where that is behind."""
    if known > at:
        return known
    known = _next(text, each, at + 1)
    return known if known >= 0 else far


cdef Name _name(str text, Py_ssize_t quote) except *:
    """What names a quote, if anything does: a name, and what says that it is one."""
    cdef Py_ssize_t at = _before_blanks(text, quote), first
    cdef Py_UCS4 char
    if at == 0 or quote - at > 3:
        return -1, 0, 0
    char = text[at - 1]
    if char == u"=" or char == u":" or char == u">":
        at -= 1
        if char == u"=" and at and text[at - 1] == u":":
            at -= 1
        elif char == u">":
            if at == 0 or text[at - 1] != u"-":
                return -1, 0, 0
            at -= 1
        first = _before_blanks(text, at)
        if at - first > 3:
            return -1, 0, 0
        return _named_before(text, first)
    if at == quote:
        return -1, 0, 0
    if u"0" <= char <= u"9":
        at -= 1
        return _named_before(text, at - 1 if at and text[at - 1] == u" " else at)
    first = at - 1
    while first and at - first <= 8 and not _is_blank(text[first - 1]):
        first -= 1
    if first == 0 or at - first > 8:
        return -1, 0, 0
    said = text[first:at].lower()
    if said.replace("\u017f", "s") in VERBS or said in NUMBERS and text[first - 1] == u" ":
        return _named_before(text, first - 1)
    return -1, 0, 0


cdef Name _named_before(str text, Py_ssize_t end) except *:
    """A name that ends there: of letters and digits, or a number with a word before it, and then that is the name."""
    cdef Py_ssize_t last = end, first, digits
    cdef str said
    while last and end - last < 2 and u"0" <= text[last - 1] <= u"9":
        last -= 1
    digits = end - last
    if digits == 0:
        while last and end - last < 5 and _is_letter(text[last - 1]):
            last -= 1
    if last and last < end and text[last - 1] == u" ":
        said = text[last:end]
        if digits or said.lower() in NUMBERS:
            first = _word_before(text, last - 1)
            if first >= 0:
                return first, last, end
    while digits >= 0:
        first = _word_before(text, end - digits)
        if first >= 0:
            return first, first, end
        digits -= 1
    return -1, 0, 0


cdef Py_ssize_t _word_before(str text, Py_ssize_t end) except -2:
    """Where the longest word begins that ends there, of 16 characters at most; -1 if none does."""
    cdef Py_ssize_t first = end
    while first and end - first < 16 and (_is_letter(text[first - 1]) or u"0" <= text[first - 1] <= u"9"):
        first -= 1
    while first < end:
        if _is_letter(text[first]) and (first > 0 and _is_of_word(text[first - 1])) != _is_of_word(text[first]):
            return first
        first += 1
    return -1


cdef Py_ssize_t _before_blanks(str text, Py_ssize_t at) except -1:
    """What comes before so many blanks, but not before more than four."""
    cdef Py_ssize_t first = at
    while first and at - first < 4 and _is_blank(text[first - 1]):
        first -= 1
    return first


cdef inline bint _is_blank(Py_UCS4 each):
    return each == 32 or each == 9 or each == 10 or each == 12 or each == 13


cdef inline bint _is_quote(Py_UCS4 each):
    return each == u'"' or each == u"'" or each == u"`" or each == u"\u201c"


cdef inline bint _is_letter(Py_UCS4 each):
    return u"a" <= each <= u"z" or u"A" <= each <= u"Z" or each in u"_$\u017f\u212a"


cdef inline bint _is_of_word(Py_UCS4 each):
    return u"a" <= each <= u"z" or u"A" <= each <= u"Z" or u"0" <= each <= u"9" or each == u"_"
