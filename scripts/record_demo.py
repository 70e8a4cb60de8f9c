"""Record `circuit-script demo` as docs/demo.svg: what a terminal of 104 columns shows."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 104
OUT = Path(__file__).parent.parent / "docs" / "demo.svg"
PROMPT = "[bold green]$[/] make demo"


def main() -> int:
    output, code = run([str(Path(sys.executable).parent / "circuit-script"), "demo"])
    console = Console(record=True, width=WIDTH, force_terminal=True, file=io.StringIO())
    console.print(PROMPT)
    console.print(Text.from_ansi(settled(output)))
    svg = console.export_svg(title="circuit-script", theme=MONOKAI)
    # The reader's own monospace font will do: a picture in a repository fetches nothing.
    OUT.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), "utf-8")
    print(f"{OUT} ({len(svg):,} bytes), exit status {code}")
    return code


def run(command: list[str]) -> tuple[str, int]:
    """The command's terminal output and exit status."""
    master, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(WIDTH), "LINES": "60", "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdout=slave, stderr=slave, stdin=subprocess.DEVNULL, env=environment)
    os.close(slave)
    chunks = []
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks).decode(errors="replace"), process.wait()


def settled(output: str) -> str:
    """What is left on the screen: of a line that was drawn again and again, the last drawing."""
    lines = []
    for line in re.sub(r"\x1b\[\?25[lh]", "", output).replace("\r\n", "\n").split("\n"):
        last = re.split(r"\r|\x1b\[2K|\x1b\[1A", line)
        lines.append(next((each for each in reversed(last) if each.strip()), ""))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
