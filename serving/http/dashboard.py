"""The page at `/dashboard`: one file, which asks this service only."""

import base64
import functools
import hashlib
import re
from pathlib import Path

FILE = Path(__file__).with_name("dashboard.html")


@functools.cache
def dashboard_page() -> bytes:
    """Returns the page, with a policy by which the browser runs this page's script and no other."""
    page = FILE.read_text(encoding="utf-8")
    script, style = (_hash(page, tag) for tag in ("script", "style"))
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; script-src '{script}'; style-src '{style}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return page.replace("{{policy}}", policy).encode()


def _hash(page: str, tag: str) -> str:
    """Source: Content Security Policy Level 3, 2.3.1: the hash of what is between the tags."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    assert found is not None
    return f"sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}"
