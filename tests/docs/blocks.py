"""The code blocks of a page, and how they run: in order, in one empty folder, with one namespace.

A block with a title is a file, which is written there: ```python title="train.py". A block of text
right after one that ran is what that prints, with ... for what varies. A block that cannot run here
says why in a comment before it: <!-- not run: it needs a cluster -->.
"""

import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
EXCUSE = re.compile(r"<!-- not run: (\S[^>]*?)\s*-->\s*\Z")
RUN = ("python", "bash", "console")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its file name if it is a file, and why it does not run."""

    page: Path
    line: int
    language: str
    title: str | None
    code: str
    excuse: str | None
    follows: bool  # nothing but blank lines lies between it and the block before

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.title is None and self.excuse is None


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found, end = [], 0
    for match in FENCE.finditer(text):
        before = text[end : match.start()]
        excuse = EXCUSE.search(before)
        code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 2
        found.append(
            Block(page, line, match["language"], match["title"], code,
                  excuse and excuse[1], bool(found) and not before.strip())
        )  # fmt: skip
        end = match.end()
    return found


class Reader:
    """Somebody who follows a page literally, in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names = folder, {"__name__": "page"}
        self.said = ""  # all that was printed

    def follow(self, page: Path, languages: Sequence[str] = RUN) -> None:
        last = None  # what the block before has printed
        for block in blocks(page):
            if block.title is not None:
                file = Path.cwd() / block.title
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.code, encoding="utf-8")
                last = None
            elif block.runs and block.language in languages:
                last = self.python(block) if block.language == "python" else self.shell(block)
                self.said += last
            elif block.language == "text" and block.follows and last is not None:
                flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                assert doctest.OutputChecker().check_output(block.code, last, flags), (
                    f"{block.place}: the page shows\n{block.code}\nand it printed\n{last}"
                )
            else:
                last = None

    def python(self, block: Block) -> str:
        code = compile("\n" * (block.line - 1) + block.code, block.place, "exec")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, self.names)
        return out.getvalue()

    def shell(self, block: Block) -> str:
        code = block.code
        if block.language == "console":
            code = "\n".join(re.findall(r"^\$ (.*)$", code, re.MULTILINE))
        here = self.folder.parent / f"{self.folder.name}.cwd"
        environment: dict[str, Any] = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{code}\npwd > '{here}'"],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert ran.returncode == 0, f"{block.place}\n{ran.stdout}\n{ran.stderr}"
        os.chdir(here.read_text().strip())  # a block that changed the folder did so for the next
        return ran.stdout
