"""Paths of the benchmark's inputs and outputs."""

from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
REQUIREMENTS = BENCHMARKS / "requirements"
VENVS = BENCHMARKS / ".venvs"
SERVICES = BENCHMARKS / "services"
WORK = BENCHMARKS / ".work"
RESULTS = BENCHMARKS / "results"

PROJECT_BIN = ROOT / ".venv" / "bin"
"""The project's environment, which `make serve` and `make test` create."""

TELCO = ROOT.parent / "shared" / "data" / "telco-customer-churn.csv"
"""IBM's public churn table, if it lies next to the checkout; not part of the repository."""
