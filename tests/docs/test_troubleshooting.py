"""`docs/troubleshooting.md` has every reason for which no model is ready, as the code says it, with cause and cure."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import PrepareError
from serving.prepare.sync import staging, verdicts
from serving.redaction import redact
from tests.support.environment import ROOT

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()

KINDS = {kind.__name__ for kind in (PrepareError, *PrepareError.__subclasses__(), verdicts.Trouble)} - {
    staging.Superseded.__name__
}
"""Errors whose message is shown by `/readyz` and `/v1/models`; and what another process makes one of."""

SENTENCES = (
    "find_code",
    "_code_of_pyfunc",
    "why_a_pickle_is_code",
    "why_types_are_code",
    "check_files",
    "find_mismatch",
    "_find_caller",
    "_storage_error",
    "why_not_predicted",
    "why_not_fetched",
    "why_misconfigured",
    "load",
    "why_not_loaded",
    "why_not",
)
"""Functions that return a part of such a message."""

VALUE = "…"
MIN_CHARACTERS = 8
"""Of the words between two values that tell a message from others."""


def template(node: ast.expr) -> str:
    """The text of an expression, with `…` for what is not in the source."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(map(template, values))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
        case _:
            return VALUE


def messages(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in KINDS and node.args:
                yield node.args[0]
            if node.func.id == "Outcome":
                yield from (keyword.value for keyword in node.keywords if keyword.arg == "message")
        if isinstance(node, ast.FunctionDef) and node.name in SENTENCES:
            said = [
                one.value for one in ast.walk(node) if isinstance(one, (ast.Return, ast.Assign)) and one.value
            ]
            for value in said:
                yield from [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]


def found() -> dict[str, Path]:
    files = [file for file in (ROOT / "serving").rglob("*.py") if file.name != "errors.py"]
    templates = {template(node): file for file in files for node in messages(ast.parse(file.read_text()))}
    return {text: file for text, file in templates.items() if parts(text)}


def parts(text: str) -> list[str]:
    """The words between the values, without what Markdown adds."""
    plain = re.sub(r"\s+", " ", text.replace("`", "").replace("\\|", "|"))
    return [part for piece in plain.split(VALUE) if len(part := piece.strip(" ;:,.()'\"")) >= MIN_CHARACTERS]


ROWS = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| `")]


@pytest.mark.parametrize("text", found(), ids=lambda text: text[:60])
def test_no_reason_looks_like_a_login(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", found(), ids=lambda text: text[:60])
def test_every_reason_is_explained(text: str) -> None:
    rows = [row for row in ROWS if all(part in " ".join(parts(row[0])) for part in parts(text))]
    assert rows, f"docs/troubleshooting.md has no row for {text!r}"


def test_every_row_has_a_cause_and_a_cure() -> None:
    assert [row for row in ROWS if len(row) != 3 or not all(cell.strip(" –") for cell in row)] == []


def test_no_row_explains_what_the_code_does_not_say() -> None:
    said = " ".join(" ".join(parts(text)) for text in found())
    for row in ROWS:
        assert any(part in said for part in parts(row[0])), row[0]
