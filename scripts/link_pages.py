"""Make every page of an error a page of the documentation: a link in docs/troubleshooting, a line in mkdocs.yml, a row
in the list of all pages.

The pages ship in the package. The documentation's builder follows links to files, not to folders.
"""

import re
from pathlib import Path

SHIPPED = Path("src/circuit_script/troubleshooting")
LINKED = Path("docs/troubleshooting")
SETTINGS = Path("mkdocs.yml")
INDEX = SHIPPED / "index.md"
ROWS = re.compile(r"(?<=\|---\|---\|\n)(?:\| .*\n)*")
NAVIGATION = re.compile(r"(?<=      - All pages:\n)(?: {10}- .*\n)*")


def main() -> None:
    pages = sorted(path.stem for path in SHIPPED.glob("*.md") if path != INDEX)
    names = [INDEX.name, *(f"{page}.md" for page in pages)]
    LINKED.mkdir(exist_ok=True)
    for link in LINKED.iterdir():
        if link.name not in names:
            link.unlink()
    for name in names:
        if not (LINKED / name).is_symlink():
            (LINKED / name).symlink_to(Path("../..") / SHIPPED / name)
    lines = "".join(f"          - {page}: troubleshooting/{page}.md\n" for page in pages)
    SETTINGS.write_text(NAVIGATION.sub(lambda _: lines, SETTINGS.read_text("utf-8"), count=1), "utf-8")
    titles = [(SHIPPED / f"{page}.md").read_text("utf-8").partition("\n")[0].removeprefix("# ") for page in pages]
    rows = "".join(f"| [{page}]({page}.md) | {title} |\n" for page, title in zip(pages, titles, strict=True))
    INDEX.write_text(ROWS.sub(lambda _: rows, INDEX.read_text("utf-8"), count=1), "utf-8")


if __name__ == "__main__":
    main()
