"""Command lines that README and docs print, as words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dreamquant.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
OTHERS = {  # options of other programs
    *("--nproc-per-node", "--no-python", "--ntasks", "--gpus-per-task", "--logdir", "--head"),
}
# What "…" stands for on a page that has shown it before.
LEFT_OUT = {
    "quantize": ("file.py:factory", "--weights", "weights.safetensors"),
    "dream": ("file.py:factory", "--weights", "weights.safetensors"),
}


class Printed(NamedTuple):
    """A command line.

    Attributes:
        page: that prints it, within the project.
        line: as printed.
    """

    page: str
    line: str

    @property
    def words(self) -> tuple[str, ...]:
        """Behind ``dreamquant``; what "…" leaves out is put in."""
        words = shlex.split(self.line, comments=True)
        words = words[words.index("dreamquant") + 1 :]
        command, *rest = words
        full = [word for each in rest for word in self._meant(each, command)]
        needs_out = command in LEFT_OUT and "--out" not in full
        return (command, *full, *(("--out", "out") if needs_out else ()))

    @staticmethod
    def _meant(word: str, command: str) -> tuple[str, ...]:
        return LEFT_OUT.get(command, ("out/mine",)) if word == "…" else (word,)


def printed() -> Iterator[Printed]:
    """All of them, page by page."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))):
        for line in _in_blocks(page.read_text()):
            if re.match(r"(\S+ )*?dreamquant [a-z]", line):
                yield Printed(str(page.relative_to(ROOT)), line)


def _in_blocks(text: str) -> Iterator[str]:
    """Lines of fenced blocks of a shell, continued ones in one piece."""
    inside = shell = False
    for line in text.replace("\\\n", " ").splitlines():
        fence = re.match(r"\s*```(\w*)", line)
        if fence:
            inside, shell = not inside, fence[1] in ("", "sh", "bash", "console")
        elif inside and shell:
            yield re.sub(r"\s+", " ", line.strip().removeprefix("$ "))


def known_options() -> set[str]:
    """Of every command, their opposites and short forms with them."""
    commands = [name for name in app.resolved_commands() if not name.startswith("-")]
    arguments = [a for name in commands for a in app[name].assemble_argument_collection()]
    return {name for a in arguments for name in (*a.names, *a.negatives)} | {"--help", "--version"}
