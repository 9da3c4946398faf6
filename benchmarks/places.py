"""Where the benchmark keeps what it reads and writes."""

from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
REQUIREMENTS = BENCHMARKS / "requirements"
VENVS = BENCHMARKS / ".venvs"
SERVICES = BENCHMARKS / "services"
WORK = BENCHMARKS / ".work"
RESULTS = BENCHMARKS / "results"

PROJECT_BIN = ROOT / ".venv" / "bin"
"""The project's own environment, which `make serve` and `make test` set up."""

TELCO = ROOT.parent / "shared" / "data" / "telco-customer-churn.csv"
"""IBM's public churn table, where it lies beside the checkout; it is not part of the repository."""
