"""Takes pictures with headless Chromium, into docs/pictures/: Swagger UI of the demo service, and the status page of make demo-drift.

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

from scripts.demo_drift import demonstrate  # noqa: E402  # needs the line above
from scripts.demo_promotion import environment_in, serving, wait_ready  # noqa: E402  # the same

PICTURES = ROOT / "docs" / "pictures"
WIDTH, HEIGHT = 1000, 1000
"""Of Swagger UI, in pixels."""
STATUS_HEIGHT = 2050
"""Of the status page."""
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
            take(f"http://127.0.0.1:{port}/#/default/predict", folder, "swagger.png", HEIGHT)
        return demonstrate(lambda url: take(f"{url}/dashboard", folder, "status.png", STATUS_HEIGHT))


def take(url: str, folder: Path, name: str, height: int) -> None:
    """Renders a page, and writes its upper part with few colours."""
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
    picture = PICTURES / name
    picture.parent.mkdir(exist_ok=True)
    with Image.open(taken) as image:
        image.convert("RGB").crop((0, 0, WIDTH, height)).quantize(COLOURS).save(picture, optimize=True)
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    sys.exit(main())
