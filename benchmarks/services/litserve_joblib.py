"""LitServe with a model from a joblib file, with batching."""

import os
import sys
from typing import Any

import joblib  # type: ignore[import-untyped]
import litserve as ls  # type: ignore[import-not-found]  # in the environment that this runs in
import pandas as pd

Rows = list[dict[str, Any]]


class Churn(ls.LitAPI):  # type: ignore[misc]  # the same
    """Requests of one or more rows each; a batch is a list of requests."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's interface
        """Loads the model, in the inference process."""
        self.model = joblib.load(os.environ["BENCHMARK_MODEL"])

    def decode_request(self, request: dict[str, Rows]) -> Rows:
        """Returns the rows of a request."""
        return request["instances"]

    def predict(self, batch: list[Rows]) -> list[list[list[float]]]:
        """Returns the probabilities of each request's rows."""
        rows = pd.DataFrame([row for request in batch for row in request])
        probabilities = iter(self.model.predict_proba(rows).tolist())
        return [[next(probabilities) for _ in request] for request in batch]

    def encode_response(self, output: list[list[float]]) -> dict[str, Any]:
        """Returns the body of an answer."""
        return {"probabilities": output}


if __name__ == "__main__":
    api = Churn(max_batch_size=64, batch_timeout=0.002)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
