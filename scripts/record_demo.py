"""Runs `make demo-promotion` and records what it prints, as an animated picture: docs/pictures/promotion.svg.

    .venv/bin/python scripts/record_demo.py

The picture has neither scripts nor fonts. With animations off, it shows the whole recording. Exit code 1, and no
picture, if the demonstration fails.
"""

import argparse
import getpass
import re
import socket
import subprocess
import sys
import time
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.demo_promotion import COLUMNS  # noqa: E402  # needs the line above

PICTURE = ROOT / "docs" / "pictures" / "promotion.svg"
COMMAND = "$ make demo-promotion"

PLAY_SECONDS, HOLD_SECONDS = 12.0, 4.0
"""Duration of the recording, however long it took, and of the pause at its end."""

CHARACTER, LINE, BLANK, MARGIN, BAR = 8.43, 18, 8, 18, 30
"""Sizes in pixels, for a font of 14."""

COLOURS = (
    (r"^== .* 0 failed$", "good"),
    (r"^(==|\$)", "head"),
    (r"^    \$", "command"),
    (r"rolled back|^      |  rollback  3 ", "bad"),
)
"""Class of a line, by the first pattern that matches."""

STYLE = """
text{font:14px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#c9d1d9;white-space:pre}
.head{fill:#79c0ff;font-weight:bold}.command{fill:#fff}.bad{fill:#ffa657}.good{fill:#7ee787;font-weight:bold}
@media(prefers-reduced-motion:reduce){g{animation:none!important}}
"""


def main() -> int:
    """Records the demonstration; returns the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    code, recording = record()
    if code:
        print(f"record_demo.py: the demonstration failed: {recording[-1][1]}", file=sys.stderr)
        return 1
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(recording))
    print(f"{PICTURE.relative_to(ROOT)}: {recording[-1][0]:.0f} s in {PLAY_SECONDS:.0f}")
    return 0


def record() -> tuple[int, list[tuple[float, str]]]:
    """Runs the demonstration; returns its exit code, and each line with its time in seconds."""
    person = f"{getpass.getuser()}@{socket.gethostname()}"
    recording = [(0.0, COMMAND)]
    begin = time.monotonic()
    with subprocess.Popen(  # noqa: S603  # our own words
        [sys.executable, ROOT / "scripts" / "demo_promotion.py"], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            # The picture has no real name, and its columns do not move.
            public = line.rstrip().replace(person, "you".ljust(len(person)))
            recording.append((time.monotonic() - begin, public))
    return process.returncode, recording


def draw(recording: list[tuple[float, str]]) -> str:
    """Returns the picture of lines with their times."""
    moments: dict[float, list[str]] = {}
    last, whole = recording[-1][0], PLAY_SECONDS + HOLD_SECONDS
    y = BAR
    for seconds, line in recording:
        y += LINE if line else BLANK
        kind = next((f' class="{name}"' for pattern, name in COLOURS if re.search(pattern, line)), "")
        at = round(100 * seconds / last * PLAY_SECONDS / whole, 1)
        if line:
            moments.setdefault(at, []).append(f'<text x="{MARGIN}" y="{y}"{kind}>{escape(line)}</text>')
    style, groups = STYLE, ""
    for number, (at, texts) in enumerate(moments.items()):
        style += f"@keyframes k{number}{{0%{{opacity:0}}{at}%{{opacity:1}}}}\n" if at else ""
        play = f' style="animation:k{number} {whole:g}s step-end infinite"' if at else ""
        groups += f"<g{play}>{''.join(texts)}</g>\n"
    width = round(2 * MARGIN + COLUMNS * CHARACTER)
    height = y + MARGIN
    dots = "".join(
        f'<circle cx="{MARGIN + 4 + 20 * at}" cy="17" r="6" fill="{colour}"/>'
        for at, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        f"<title>make demo-promotion</title>\n<style>{style}</style>\n"
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="#0d1117" stroke="#484f58"/>\n'
        f"{dots}\n{groups}</svg>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
