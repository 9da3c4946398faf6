"""Takes a picture of the demo service's Swagger UI with headless Chromium: docs/pictures/swagger.png.

    .venv/bin/python scripts/take_screenshot.py

Needs Debian's package chromium.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.demo_promotion import environment_in, serving, wait_ready  # noqa: E402  # needs the line above

PICTURE = ROOT / "docs" / "pictures" / "swagger.png"
WIDTH, HEIGHT = 1000, 1000
"""In pixels."""
WHOLE_HEIGHT = 4000
"""High enough that the page does not scroll to the link's target."""
COLOURS = 256
RENDER_MS = 10_000
"""Timeout for rendering the page."""


def main() -> int:
    """Takes the picture; returns the exit code."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if shutil.which("chromium") is None:
        print("take_screenshot.py: no chromium; apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="screenshot-") as name:
        folder = Path(name)
        environment = environment_in(folder)
        train = [sys.executable, str(ROOT / "scripts" / "train.py"), "--promote", "--estimator", "forest"]
        subprocess.run(train, cwd=folder, env=environment, check=True)  # noqa: S603  # our own words
        with serving(folder, environment) as port:
            wait_ready(f"http://127.0.0.1:{port}")
            take(f"http://127.0.0.1:{port}/#/default/predict", folder)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1000} kB")
    return 0


def take(url: str, folder: Path) -> None:
    """Renders the page, and writes it with few colours."""
    taken = folder / "taken.png"
    options = [
        *("--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/chromium"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium refuses to run as root with it
        *(
            f"--window-size={WIDTH},{WHOLE_HEIGHT}",
            f"--virtual-time-budget={RENDER_MS}",
            f"--screenshot={taken}",
        ),
    ]
    subprocess.run(["chromium", *options, url], check=True, capture_output=True)  # noqa: S603, S607  # Debian's
    PICTURE.parent.mkdir(exist_ok=True)
    with Image.open(taken) as image:
        image.convert("RGB").crop((0, 0, WIDTH, HEIGHT)).quantize(COLOURS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
