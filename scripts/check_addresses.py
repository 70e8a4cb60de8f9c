"""Refuse files that name one machine's folders or a registry's host: neither exists elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

# The brackets keep this file from finding itself.
FORBIDDEN = re.compile(
    r"(?<![\w.])/(?:[w]ork|[h]ome/\w+|[U]sers/\w+|[r]oot)/"
    r"|/opt/(?:[p]ypi|[w]heels)"
    r"|[p]ypi\.org|[p]ythonhosted\.org|[r]egistry\.npmjs|[d]eb\.debian\.org"
    r"|-{2}(?:extra-)?index-url|-{2}find-links"
)


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    )
    found = 0
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = Path(name)
        if not path.is_file():
            continue
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := FORBIDDEN.search(line):
                print(f"{name}:{number}: names {match[0]!r}")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
