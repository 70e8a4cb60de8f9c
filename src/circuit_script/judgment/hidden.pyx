# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, cdivision=True
"""The loops over every piece of a text that people do not see, compiled.

Each says what `markup` says in Python, which is what this was written from and what is used where there is no compiler.
Texts come from strangers, so every access to an array is checked. Nothing is kept from text to text.
"""

import numpy as np

cdef extern from "Python.h":
    Py_ssize_t PyUnicode_FindChar(object text, Py_UCS4 each, Py_ssize_t start, Py_ssize_t end, int direction) except -2

cdef Py_ssize_t LETTERS = 200  # characters of a piece in which a letter is looked for
cdef Py_ssize_t LONG_ATTRIBUTE = 45  # characters of its name
cdef Py_ssize_t LONG_KEY = 40  # characters
cdef Py_ssize_t LONG_NAME = 29  # characters of an element's name


cdef inline Py_ssize_t _next(str text, Py_UCS4 each, Py_ssize_t start, Py_ssize_t end) except -2:
    """Where a character stands next, -1 if it does not."""
    return PyUnicode_FindChar(text, each, start, end, 1)


cdef inline Py_ssize_t _last(str text, Py_UCS4 each, Py_ssize_t start, Py_ssize_t end) except -2:
    """Where a character stands before."""
    return PyUnicode_FindChar(text, each, start if start > 0 else 0, end, -1)


cdef inline bint _is_blank(Py_UCS4 each):
    return each == 32 or each == 9 or each == 10 or each == 12 or each == 13


cdef inline bint _is_quote(Py_UCS4 each):
    return each == 34 or each == 39


cdef inline bint _is_small(Py_UCS4 each):
    return 97 <= each <= 122 or 48 <= each <= 57 or each == 45 or each == 95


cdef inline bint _is_of_key(Py_UCS4 each):
    return _is_small(each) or each == 36 or each == 64 or each == 35 or each == 47


cdef bint _is_address(str text, Py_ssize_t start, Py_ssize_t end) except -1:
    """Whether it is an address: `markup._ADDRESS`."""
    cdef Py_UCS4 each
    if _next(text, u"/", start, end) < 0:
        return False
    for each in text[start:end]:
        if not (_is_of_key(each) or 65 <= each <= 90 or each == 46 or each == 58 or each == 126 or each == 43):
            return False
    return True


cdef Py_ssize_t _after_blanks(str text, Py_ssize_t at, Py_ssize_t most, Py_ssize_t last):
    """What comes after so many blanks at most."""
    most = min(at + most, last)
    while at < most and _is_blank(text[at]):
        at += 1
    return at


cdef str _stripped(str text, Py_ssize_t start, Py_ssize_t end):
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return text[start:end]


cdef inline bint _is_no_name(Py_UCS4 each):
    """Whether no entity's name begins with it."""
    return each == 59 or each == 32 or each == 9 or each == 10 or each == 12 or each == 60


cdef int _numbered(str said, Py_ssize_t at, Py_ssize_t last) except -1:
    """The character of ASCII that an entity with its number says, as most are; 0 for any other entity."""
    cdef Py_ssize_t place
    cdef int code = 0
    if at + 3 < last and said[at + 1] == u"#":
        for place in range(at + 2, min(at + 6, last)):
            if said[place] == u";":
                return code if 32 <= code < 127 else 0
            if not u"0" <= said[place] <= u"9":
                break
            code = 10 * code + <int>said[place] - 48
    return 0


cdef str _without_tags(str said):
    cdef list told
    cdef Py_ssize_t at = _next(said, u"<", 0, len(said)), end, last, following
    told = [said[:at]]
    while at >= 0:
        following = _next(said, u"<", at + 1, len(said))
        last = following if following >= 0 else len(said)
        end = _next(said, u">", at, last)
        told.append(said[end + 1 : last] if end >= 0 else "")
        at = following
    return " ".join(told)


cdef class Finder:
    """`markup.Plain`: what is hidden in a text."""

    cdef Py_ssize_t most, longest, most_read, long_entity
    cdef object attributes, empty, entity, unescaped, is_key, other_ground

    def __init__(self, limits, attributes, empty, entity, unescaped, is_key, other_ground):
        """``limits``: pieces of one kind, characters of one, of all that a name hides, and of an entity; the
        functions are those of `markup`."""
        self.most, self.longest, self.most_read, self.long_entity = limits
        self.attributes, self.empty = attributes, empty
        self.entity, self.unescaped, self.is_key, self.other_ground = entity, unescaped, is_key, other_ground

    cpdef tuple piece(self, str text, Py_ssize_t start, Py_ssize_t end, str rule):
        """What stands there, without the tags in it and with its entities decoded."""
        cdef str said
        end = min(end, start + self.longest, len(text))
        cdef bint tags = rule != "comment" and _next(text, u"<", start, end) >= 0
        cdef bint coded = _next(text, u"&", start, end) >= 0
        if not tags and not coded:
            return _stripped(text, start, end), start, end, rule
        said = text[start:end]
        if tags:
            said = _without_tags(said)
        if coded:
            said = self.decoded(said)
        return said.strip(), start, end, rule

    cpdef str decoded(self, str said):
        """With its entities decoded."""
        cdef Py_ssize_t size = len(said), at = _next(said, u"&", 0, size), done = 0, end, last
        cdef int code
        cdef list told = []
        if at < 0:
            return said
        while at < size:
            last = _next(said, u"&", at + 1, size)
            if last < 0:
                last = size
            if at + 1 == last or _is_no_name(said[at + 1]):
                at = last
                continue
            told.append(said[done:at])
            code = _numbered(said, at, last)
            if code:
                told.append(chr(code))
                done = _next(said, u";", at, last) + 1
                at = last
                continue
            end = _next(said, u";", at, last)
            if (end if end >= 0 else last) - at > self.long_entity:
                told.append(self.unescaped(said[at:last]))
                done = last
            else:
                done = end + 1 if end >= 0 else last
                told.append(self.entity(said[at:done]))
            at = last
        told.append(said[done:])
        return "".join(told)

    def kept(self, list found):
        """Those that are longer than three characters and have a letter."""
        cdef list kept = []
        cdef tuple each
        cdef str said
        cdef Py_ssize_t at
        for each in found:
            said = each[0]
            if len(said) > 3:
                for at in range(min(len(said), LETTERS)):
                    if said[at].isalpha():
                        kept.append(each)
                        break
        return tuple(kept)

    def comments(self, str text):
        cdef list found = []
        cdef Py_ssize_t start, end = 0
        while len(found) < self.most:
            start = text.find("<!--", end)
            if start < 0:
                break
            end = text.find("-->", start + 4)
            found.append(self.piece(text, start + 4, len(text) if end < 0 else end, "comment"))
            if end < 0:
                break
        return found

    cpdef list given(self, str text, str small, Py_ssize_t first, Py_ssize_t last):
        """What stands in attributes."""
        cdef list found = []
        cdef Py_ssize_t equals, start, end, name, at = first, count = 0
        while count < self.most:
            equals = _next(small, u"=", at, last)
            if equals < 0:
                break
            at = equals + 1
            start = _after_blanks(small, at, 3, last)
            if start >= last or not _is_quote(small[start]):
                continue
            end = equals
            while end > first and equals - end < 3 and _is_blank(small[end - 1]):
                end -= 1
            name = end
            while name > first and end - name <= LONG_ATTRIBUTE and _is_small(small[name - 1]):
                name -= 1
            if name == end or name == first or not self._is_attribute(small, name, end):
                continue
            count += 1
            first = at = start + 1
            end = _next(text, text[start], at, min(at + self.longest, last))
            if end - at > 8:
                found.append(self.piece(text, at, end, "attribute"))
        return found

    cdef bint _is_attribute(self, str small, Py_ssize_t start, Py_ssize_t end) except -1:
        """Whether this is the name of one that is read, with a blank or a quote before it."""
        if not (_is_blank(small[start - 1]) or _is_quote(small[start - 1])):
            return False
        name = small[start:end]
        return name in self.attributes or 5 < end - start <= LONG_ATTRIBUTE and name.startswith("data-")

    def styled(self, str text, str small, str low, list spans, bint grounds):
        """Elements that a style hides, and where styles stand that are in no tag."""
        cdef list found = [], inside, sheets = []
        cdef Py_ssize_t start, end, tag, close, seen = -1, covered = -1
        for start, end in spans:
            start, end = start + 1, end - 1
            tag = _last(text, u"<", start - 1000, start)
            if tag < 0 or _next(text, u">", tag, start) >= 0:
                sheets.append(start)
                continue
            if tag == seen or tag < covered:
                continue
            seen = tag
            close = _next(text, u">", end, end + 1000)
            if close < 0 or grounds and self.other_ground(text[tag:close]):
                continue
            inside = self._inside(text, small, low, tag, close)
            if inside:
                covered = inside[len(inside) - 1][2]
                found += inside
        return found, sheets

    def of_classes(self, str text, str small, str low, list names, Py_ssize_t most):
        """What stands in elements that have one of these names in their tag."""
        cdef list found = [], inside
        cdef set tags = set()
        cdef Py_ssize_t tag, close, place, end, left = self.most_read
        for name, places in zip(names, Names(names).places(text, most)):
            for place in places:
                end = place + len(name)
                tag = _last(text, u"<", place - 500, place)
                close = _next(text, u">", end, end + 500) if tag >= 0 else -1
                if close < 0 or _next(text, u">", tag, place) >= 0 or tag in tags:
                    continue
                tags.add(tag)
                inside = self._inside(text, small, low, tag, close)
                found += inside
                for each in inside:
                    left -= each[2] - each[1]
                if left < 0:
                    return found
        return found

    cdef list _inside(self, str text, str small, str low, Py_ssize_t tag, Py_ssize_t close):
        cdef str name = self._opened(low, tag, close)
        if not name:
            return []
        if name == "input":
            return self.given(text, small, tag, close + 1)
        cdef Py_ssize_t first = close + 1, last = min(close + 1 + self.longest, len(text))
        return [self.piece(text, first, _end_of(name, low, first, last), "hidden-style")]

    cdef str _opened(self, str low, Py_ssize_t tag, Py_ssize_t close):
        """The name of a tag's element, or "" if no text is in it."""
        cdef Py_ssize_t end = tag + 1, last = min(close, tag + 1 + LONG_NAME)
        cdef str name
        while end < last and low[end] != u" " and low[end] != u"/" and low[end] != u">":
            end += 1
        name = low[tag + 1 : end]
        if name == "input":
            return name
        return "" if not name.isalnum() or name in self.empty or low[close - 1] == u"/" else name

    def markdown(self, str text):
        """Descriptions of pictures and titles of links."""
        cdef list found = []
        cdef Py_ssize_t place = 0, start = -1, following = text.find("![", 0), end, quote, last
        for _ in range(self.most):
            place = text.find("](", place + 1)
            if place < 0:
                break
            while 0 <= following <= place - 2:
                start, following = following, text.find("![", following + 1)
            if start >= 0 and start >= place - 1000 and _next(text, u"]", start, place) < 0:
                found.append(self.piece(text, start + 2, place, "markdown"))
            end = _next(text, u")", place, place + 1000)
            quote = _next(text, u'"', place, end) if end >= 0 else -1
            last = _next(text, u'"', quote + 1, quote + 1000) if quote >= 0 else -1
            if last >= 0:
                found.append(self.piece(text, quote + 1, last, "markdown"))
        return found

    def definitions(self, str text):
        """`[name]: address "title"`, and comments in the form of one."""
        cdef list found = []
        cdef Py_ssize_t place = 0, line, end, start, first, last, gap, size = len(text)
        for _ in range(self.most):
            place = text.find("]:", place + 1)
            if place < 0:
                break
            line = _last(text, u"\n", place - 200, place) + 1
            if line == 0:
                line = max(0, place - 200)
            while line < place and (text[line] == u" " or text[line] == u"\t" or text[line] == u">"):
                line += 1
            if line >= place or text[line] != u"[":
                continue
            end = _next(text, u"\n", place, place + self.longest)
            if end < 0:
                end = min(size, place + self.longest)
            start = first = place + 2
            last = end
            while first < last and text[first].isspace():
                first += 1
            while last > first and text[last - 1].isspace():
                last -= 1
            gap = _next(text, u" ", first, last) if first < last else -1
            if gap >= 0 and text[first] != u"(" and not _is_quote(text[first]):
                found.append(self.piece(text, text.find(text[gap + 1 : last], start), end, "markdown"))
            elif "://" not in text[first : gap if gap >= 0 else last]:
                found.append(self.piece(text, start, end, "markdown"))
            place = end - 1
        return found

    def keys(self, str text, str small):
        """What stands in fields that machines read."""
        cdef list found = []
        cdef Py_ssize_t at = 0, size = len(small), name, start, end, count = 0
        cdef Py_UCS4 quote
        while at < size and count < self.most:
            if not _is_quote(small[at]):
                at += 1
                continue
            at = name = at + 1
            end = name
            while end < size and end - name <= LONG_KEY and _is_of_key(small[end]):
                end += 1
            if end == name or end - name > LONG_KEY or end >= size or not _is_quote(small[end]):
                continue
            start = _after_blanks(small, end + 1, 4, size)
            if start >= size or small[start] != u":":
                continue
            start = _after_blanks(small, start + 1, 4, size)
            if start >= size or not _is_quote(small[start]) or not self.is_key(small[name:end]):
                continue
            count += 1
            quote = small[start]
            at = start = start + 1
            end = _next(text, quote, start, start + self.longest)
            while end > start and text[end - 1] == u"\\":
                end = _next(text, quote, end + 1, start + self.longest)
            if end - start > 8 and not _is_address(text, start, end):
                found.append(self.piece(text, start, end, "metadata"))
        return found


cdef Py_ssize_t _end_of(str name, str low, Py_ssize_t place, Py_ssize_t last) except -2:
    """Where an element of this name ends whose text begins at ``place``."""
    cdef str closing = "</" + name, opening = "<" + name
    cdef Py_ssize_t depth = 1, ends = -1
    for _ in range(20):
        if ends < place:
            ends = low.find(closing, place, last)
        if ends < 0:
            return last
        opens = low.find(opening, place, ends)
        if opens >= 0:
            depth, place = depth + 1, opens + 1
            continue
        depth, place = depth - 1, ends
        if depth == 0:
            break
        place += 2
    return place


cdef class Names:
    """Some names as a tree of their letters: a text is read once, however many they are and whatever is in it.

    https://en.wikipedia.org/wiki/Aho%E2%80%93Corasick_algorithm
    """

    cdef int[::1] roots, child, sibling, fails, inner, ends, sizes  # roots are by their letter; an end has its name
    cdef unsigned int[::1] letters
    cdef Py_ssize_t count

    def __init__(self, list names):
        cdef str name
        cdef int nth, at, parent, made = 0
        cdef unsigned int letter
        size = sum([len(name) for name in names]) + 1
        self.count = len(names)
        self.roots, self.letters = np.full(128, -1, np.intc), np.zeros(size, np.uintc)
        self.child, self.sibling, self.fails, self.inner, self.ends = np.full((5, size), -1, np.intc)
        self.sizes = np.array([len(name) for name in names], np.intc)
        for nth in range(self.count):
            name = names[nth]
            parent = -1
            for letter in name:
                at = self._step(parent, letter)
                if at < 0:
                    at, made = made, made + 1
                    self.letters[at] = letter
                    if parent >= 0:
                        self.sibling[at], self.child[parent] = self.child[parent], at
                    else:
                        self.sibling[at], self.roots[letter & 127] = self.roots[letter & 127], at
                parent = at
            self.ends[parent] = nth
        self._linked()

    cdef inline int _step(self, int at, unsigned int letter) except -2:
        """Where a letter leads to, -1 for nowhere."""
        at = self.child[at] if at >= 0 else self.roots[letter & 127]
        while at >= 0 and self.letters[at] != letter:
            at = self.sibling[at]
        return at

    cdef inline int _next_of(self, int at, unsigned int letter) except -2:
        """The same, or where it leads to from the longest end of what was read that a name begins with."""
        cdef int following = self._step(at, letter)
        while following < 0 and at >= 0:
            at = self.fails[at]
            following = self._step(at, letter)
        return following

    cdef int _linked(self) except -1:
        """Note of each place what is next, if no name goes on there, and which names end there within a longer one."""
        cdef list places = [each for each in self.roots if each >= 0]
        cdef int at, fails, following
        for at in places:
            following = self.sibling[at]
            if following >= 0:
                places.append(following)
        for at in places:
            following = self.child[at]
            while following >= 0:
                fails = self._next_of(self.fails[at], self.letters[following])
                self.fails[following] = fails
                if fails >= 0:
                    self.inner[following] = fails if self.ends[fails] >= 0 else self.inner[fails]
                places.append(following)
                following = self.sibling[following]
        return 0

    cdef list places(self, str text, Py_ssize_t most):
        """Where each name stands first, so often at most, and never within itself."""
        cdef list places = [[] for _ in range(self.count)], found
        cdef Py_ssize_t[::1] begins = np.zeros(self.count + 1, np.intp)
        cdef Py_ssize_t place = 0, start
        cdef Py_UCS4 letter
        cdef int at = -1, end, nth
        for letter in text if most > 0 else "":
            place += 1
            at = end = self._next_of(at, letter)
            if at >= 0 and self.ends[at] < 0:
                end = self._inner(at)
            while end >= 0:
                nth = self.ends[end]
                start = place - self.sizes[nth]
                if start >= begins[nth]:
                    found = places[nth]
                    found.append(start)
                    begins[nth] = place
                    if len(found) >= most:
                        self.ends[end] = -1
                end = self._inner(end)
        return places

    cdef inline int _inner(self, int at) except -2:
        """The next name that ends there, of those that are still looked for."""
        while self.inner[at] >= 0 and self.ends[self.inner[at]] < 0:
            self.inner[at] = self.inner[self.inner[at]]
        return self.inner[at]
