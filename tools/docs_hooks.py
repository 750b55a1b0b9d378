"""What the documentation's pages need beyond MkDocs: equations without scripts, every result."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(div|span) class="arithmatex">\\[\[(](.*?)\\[\])]</\1>', re.DOTALL)
_OPENED = '<details class="mkdocstrings-source" open>'
_ROLE = re.compile(r":(?:func|class|attr|meth|mod):<code>[~\w.]*?(\w+)</code>")


def on_config(config: Any) -> Any:
    """List every page of ``docs/results``, whichever benchmarks have been run."""
    folder = Path(config["docs_dir"], "results")
    pages = sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")
    for entry in config["nav"]:
        if "Results" in entry:
            entry["Results"] = [f"results/{name}" for name in ("README.md", *pages)]
    return config


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Put equations into the page as MathML, which browsers draw, and roles as plain code.

    Methods' pages show the code of their terms at once, beside the equations.
    """
    if page.file.src_uri.startswith("methods/"):
        html = html.replace('<details class="mkdocstrings-source">', _OPENED)
    return _ROLE.sub(r"<code>\1</code>", _EQUATION.sub(_mathml, html))


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    return str(convert(unescape(found[2]), display=display))
