"""Generates a churn table, for trying `train.py` without data."""

import numpy as np
import pandas as pd

CONTRACTS = ("month-to-month", "one-year", "two-year")
PAYMENT_METHODS = ("bank transfer", "credit card", "electronic check", "mailed check")
TARGET = "churn"


def make_churn_sample(n_rows: int = 2_000, seed: int = 0) -> pd.DataFrame:
    """Draws customers of an invented telephone company; the same seed gives the same customers.

    New customers, short contracts, high charges and electronic checks make churn likelier, about as in
    the public churn data sets. About one in a hundred `total_charges` is missing.

    Returns:
        `n_rows` rows of tenure (months, int64), monthly_charges (float64), total_charges (float64),
        contract_type, payment_method and churn ("no" or "yes", about a quarter "yes").
    """
    random = np.random.default_rng(seed)
    tenure = random.integers(0, 73, n_rows)
    monthly = random.uniform(18, 120, n_rows).round(2)
    total = (tenure * monthly * random.uniform(0.95, 1.05, n_rows)).round(2)
    total[random.random(n_rows) < 0.01] = np.nan
    contract = random.choice(3, n_rows, p=(0.55, 0.21, 0.24))
    payment = random.choice(4, n_rows, p=(0.22, 0.22, 0.33, 0.23))
    score = (
        -1.4
        - 0.08 * (tenure - 24)
        + 0.04 * (monthly - 65)
        + np.array((1.5, -1.5, -3.0))[contract]
        + np.array((0.0, -0.2, 1.0, 0.0))[payment]
    )
    leaves = random.random(n_rows) < 1 / (1 + np.exp(-score))
    return pd.DataFrame(
        {
            "tenure": tenure,
            "monthly_charges": monthly,
            "total_charges": total,
            "contract_type": np.array(CONTRACTS)[contract],
            "payment_method": np.array(PAYMENT_METHODS)[payment],
            TARGET: np.where(leaves, "yes", "no"),
        }
    )
