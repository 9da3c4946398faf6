"""Quality in Prometheus' text format, from the answer of `/v1/quality`."""

from collections.abc import Iterator
from typing import Any

from serving.monitoring.drift.exposition import escape

QUALITY = {
    "accuracy": "Share of right labels.",
    "precision": "Precision, the mean over the classes.",
    "recall": "Recall, the mean over the classes.",
    "f1": "F1, the mean over the classes.",
    "roc_auc": "Area under the ROC curve; with more than two classes, the mean of each against the rest.",
    "log_loss": "Logarithmic loss.",
    "calibration_error": "Expected calibration error: mean distance of predicted and observed probability.",
    "rmse": "Root mean squared error.",
    "mae": "Mean absolute error.",
    "r2": "Coefficient of determination.",
}

METRICS = {
    **{
        f"model_{name}": f"{meaning} Of the answers with truth in the window."
        for name, meaning in QUALITY.items()
    },
    "model_labels": "Answers in the window whose truth is known.",
    "model_estimated_accuracy": "Estimate of the accuracy of the window's answers without truth, from calibrated "
    "probabilities.",
    "model_estimated_accuracy_error": "Standard error of this estimate.",
    "model_challenger_verdict": "1 if the version is better than the champion, -1 if it is worse, 0 if that is not clear.",
    "model_challenger_difference": "The version's mean minus the champion's.",
    "model_challenger_difference_low": "Lower end of the difference's interval, valid at every look.",
    "model_challenger_difference_high": "Upper end of the interval.",
}
"""Help by name; all are gauges."""

VERDICTS = {"better": 1, "not yet": 0, "worse": -1}


def exposition(quality: dict[str, Any]) -> bytes:
    """Returns the text."""
    samples: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in _samples(quality):
        if value is not None:
            text = ",".join(f'{label}="{escape(str(of))}"' for label, of in labels.items())
            samples[name].append(f"{name}{{{text}}} {float(value)!r}\n")
    return "".join(
        f"# HELP {name} {METRICS[name]}\n# TYPE {name} gauge\n{''.join(lines)}"
        for name, lines in samples.items()
        if lines
    ).encode()


def _samples(quality: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], float | None]]:
    name = {"model_name": quality["model"]}
    for window in quality["windows"]:
        for of in window["versions"]:
            labels = name | {
                "model_version": of["version"],
                "role": of["role"],
                "window": window["window"],
            }
            yield "model_labels", labels, of["labels"]
            for metric, value in of["metrics"].items():
                yield f"model_{metric}", labels, value
            estimate = of.get("estimate")
            if estimate:
                yield "model_estimated_accuracy", labels, estimate["accuracy"]
                yield "model_estimated_accuracy_error", labels, estimate["standard_error"]
    for comparison in quality["comparisons"]:
        for metric, judged in comparison["metrics"].items():
            labels = name | {
                "model_version": comparison["challenger"],
                "champion_version": comparison["champion"],
                "role": comparison["role"],
                "metric": metric,
            }
            yield "model_challenger_verdict", labels, VERDICTS[judged["verdict"]]
            yield "model_challenger_difference", labels, judged["value"]
            yield "model_challenger_difference_low", labels, judged["low"]
            yield "model_challenger_difference_high", labels, judged["high"]
