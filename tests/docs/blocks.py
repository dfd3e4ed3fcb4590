"""The examples in the documentation: fenced code blocks, and what they are.

A block whose first line is a comment with a path (``# chat/consumers.py``) is a
file. A block of ``console`` is a transcript: commands after ``$``, and what they
print, where ``...`` stands for anything. Any other is a step that is executed, but
for those without a language, which are pictures. ``<!-- not run: reason -->`` before
a block says that it is none of that.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<reason>.+?) -->\n+)?"
    r"^(?P<indent>[ ]*)```(?P<language>[a-z-]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
PATH = re.compile(r"(?:#|//|<!--) (?P<path>[\w./-]+\.(?:py|html|js|ini))(?: -->)?\n")
INSTALL = re.compile(r"\$ python -m pip install ['\w\[\],. -]+")
EXTRAS = re.compile(r"channels_groups\[([\w,]+)\]")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    code: str
    #: Why it is not run, or None.
    reason: str | None

    @property
    def path(self):
        """The file that it is, or None."""
        match = PATH.match(self.code)
        return match and match["path"]

    @property
    def extras(self):
        """The extras of this package that it installs; None: it does other things."""
        lines = self.code.splitlines()
        if self.language == "console" and all(map(INSTALL.fullmatch, lines)):
            return [x for some in EXTRAS.findall(self.code) for x in some.split(",")]
        return None

    @property
    def is_step(self):
        """Whether it is to be executed by the page's scenario."""
        done = self.reason or self.path or self.extras is not None
        return bool(self.language) and not done

    def __str__(self):
        return f"{self.page}:{self.line}"


def read_blocks(page):
    """Return the blocks of a Markdown file, by its path from the root."""
    text = (ROOT / page).read_text()
    return [
        Block(
            page,
            text.count("\n", 0, match.start("code")),
            match["language"],
            dedent(match["code"], len(match["indent"])),
            match["reason"],
        )
        for match in FENCE.finditer(text)
    ]


def dedent(code, width):
    """Take a list item's indentation away."""
    return "".join(line[width:] or "\n" for line in code.splitlines(keepends=True))


def find_pages():
    """Return the pages of the documentation that have examples."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [path.relative_to(ROOT).as_posix() for path in pages]
    return [name for name in names if read_blocks(name)]
