"""Builds the documentation as a site: dist/site.

    .venv/bin/python scripts/build_site.py

`make docs` sets up Zensical for it. Exit code 1 if a link leads nowhere, a page is missing from the navigation, or a
page would load anything from another host.
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "zensical.toml"
SOURCE, SITE = ROOT / "dist" / "pages", ROOT / "dist" / "site"
TOOLS = ROOT / ".venv" / "docs"
MERMAID = TOOLS / "node_modules" / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"

FILES = (
    "*.md",
    "LICENSE",
    "docs/*.md",
    "docs/pictures/*",
    "benchmarks/README.md",
    "benchmarks/results/latest*.md",
    "benchmarks/results/latest*.png",
)
"""Files of the site, at the same paths as in the repository, so that links work in both."""


class References(HTMLParser):
    """Collects what a page links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Takes a tag's address."""
        for name, value in attributes:
            if value is not None and name in ("href", "src"):
                (self.links if tag == "a" else self.loads).append(value)


def main() -> int:
    """Builds and checks the site; returns the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for folder in (SOURCE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    for pattern in FILES:
        for file in ROOT.glob(pattern):
            copy(file, SOURCE / file.relative_to(ROOT))
    copy(MERMAID, SOURCE / "assets" / "mermaid.js")
    built = subprocess.run(  # noqa: S603  # our own words
        [TOOLS / "bin" / "zensical", "build", "--clean", "--strict", "--config-file", CONFIG],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if built.returncode:
        print(re.sub(r"\x1b\[[\d;]*m", "", built.stdout).partition("Traceback")[0].strip())
        return 1
    mistakes = [*not_in_navigation(), *dead_ends()]
    print("\n".join(mistakes) or f"the documentation is in {(SITE / 'index.html').relative_to(ROOT)}")
    return 1 if mistakes else 0


def copy(file: Path, target: Path) -> None:
    """Copies a file; creates its folder if needed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def not_in_navigation() -> Iterator[str]:
    """Yields errors of the navigation, which Zensical does not check."""
    named = set(re.findall(r'= "(\S+\.md)"', CONFIG.read_text()))
    pages = {str(page.relative_to(SOURCE)) for page in SOURCE.rglob("*.md")}
    yield from (f"{page}: missing from the navigation in {CONFIG.name}" for page in sorted(pages - named))
    yield from (f"{CONFIG.name}: {page} does not exist" for page in sorted(named - pages))


def dead_ends() -> Iterator[str]:
    """Yields references to missing files; Zensical checks only links between pages."""
    for page in sorted(SITE.rglob("*.html")):
        found = References(page.read_text())
        name = page.relative_to(SITE)
        yield from (f"{name}: loads {one} from another host" for one in found.loads if urlsplit(one).netloc)
        for one in {*found.links, *found.loads}:
            parts = urlsplit(one)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            folder = SITE if parts.path.startswith("/") else page.parent
            target = (folder / unquote(parts.path).lstrip("/")).resolve()
            if not (target / "index.html" if target.is_dir() else target).is_file():
                yield f"{name}: {one} does not exist, or is not among FILES of build_site.py"


if __name__ == "__main__":
    sys.exit(main())
