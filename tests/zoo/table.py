"""Writes docs/compatibility.md: how each model of the collection is served."""

import re
from collections import Counter
from importlib.metadata import version

from tests.support.environment import ROOT
from tests.zoo.comparing import Finding

TABLE = ROOT / "docs" / "compatibility.md"

LIBRARIES = ("mlflow", "scikit-learn", "xgboost-cpu", "lightgbm", "pandas", "numpy", "skops")

HEAD = """# Compatibility

For data scientists: how each kind of model is served, and how close its answers are to MLflow's own. `make zoo` logs {n} models
and prepares each as the service does. It sends training rows, single rows, nulls and unseen texts in every media type (JSON
`predict` and `predict_batch`, `.npy`, Arrow), and compares the answers with those of the model that MLflow loads. It writes this
file; do not edit it.

With {versions}:
{counts}.

- **runtime**: `compiled`, `mixed` or `native` as in [performance.md](performance.md), or `rejected` by the gate.
- **answers**: `equal` means identical bits; a number is the largest difference, which is relative for numbers above 1.
- **faster**: how many times longer the library itself takes for one row.

All settings are the defaults, except `SERVING_ALLOW_PICKLE=true` for pyfunc models, which contain code.

Next: [performance.md](performance.md#what-is-compiled) for what is compiled, [models.md](models.md) for your own.
"""


def write_table(findings: list[Finding]) -> None:
    """Overwrites the file."""
    counts = Counter(finding.runtime for finding in findings)
    said = ", ".join(f"{count} {runtime}" for runtime, count in counts.most_common())
    versions = ", ".join(f"{name.removesuffix('-cpu')} {version(name)}" for name in LIBRARIES)
    lines = [HEAD.format(n=len(findings), versions=versions, counts=said)]
    for library in dict.fromkeys(finding.library for finding in findings):
        lines += [f"## {library}", ""]
        lines += ["| model | runtime | answers | faster | why |", "|---|---|---|---|---|"]
        lines += [_row(finding) for finding in findings if finding.library == library] + [""]
    TABLE.write_text("\n".join(lines))


def _row(finding: Finding) -> str:
    if finding.runtime == "rejected":
        answers = "-"
    elif finding.wrong:
        answers = "**wrong**"
    else:
        answers = f"{finding.difference:.0e}" if finding.difference else "equal"
    faster = f"{float(f'{finding.speed_up:.1g}'):g}" if finding.runtime in ("compiled", "mixed") else "-"
    why = finding.reason.replace("|", "\\|").replace("\n", " ")
    return f"| {finding.name} | {finding.runtime} | {answers} | {faster} | {why} |"


def names_in_table() -> list[str]:
    """Returns the models that have a row in the file."""
    rows = re.findall(
        r"^\| (.+?) \| (?:compiled|mixed|native|rejected|crashed) \|", TABLE.read_text(), re.MULTILINE
    )
    return list(rows)
