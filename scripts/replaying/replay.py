"""Asks a version the rows of the log, and compares its answers with the champion's."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from scripts.evaluating.files import spread_probabilities
from scripts.evaluating.truths import Truths, read_feedback, read_truths
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.compatibility import schema_of, why_refused
from scripts.lifecycle.registry import RegisteredModel
from scripts.replaying.candidate import Answers, open_candidate
from scripts.replaying.changes import compare
from scripts.replaying.columns import check_columns
from scripts.replaying.judgement import judge_answers
from scripts.replaying.sample import Sample, read_sample
from scripts.training.column_options import no_column
from serving.errors import PrepareError
from serving.model.schema import Schema
from serving.monitoring.prediction_log.reading import Period
from serving.monitoring.prediction_log.rows import INPUT
from serving.monitoring.quality.slices import slices
from serving.settings import Settings

OWN = ("request_id", "row", "key", "role", "time", "label", "value", "output", "probabilities")
"""Columns of the log that are kept beside those in the options."""


class Replay(NamedTuple):
    """What a replay has found."""

    facts: dict[str, Any]
    truth_lines: list[str]


def replay_log(
    folder: Path, model: RegisteredModel, champion: str, options: argparse.Namespace, settings: Settings
) -> Replay:
    """Returns how the answers of the version in the options differ from the champion's.

    Raises:
        LifecycleError: the log has no such rows, or the version cannot be asked.
    """
    sample = read_sample(folder, model.name, champion, Period(options.since, options.until), options.limit)
    by = {name: _find_column(name, sample.table) for name in options.by}
    truths = read_truths(options) or read_feedback(settings, folder, model.name)
    asked = _schema_of(model, champion)
    with open_candidate(model, options.version, settings) as candidate:
        check_columns(sample.table.column_names, asked, candidate.schema, options.version)
        answers = candidate.ask(sample, asked)
        found = _compare(sample, answers, by=by, truths=truths, champion=champion, options=options)
        overlap = candidate.find_overlap(answers) if found.truth_lines else None
    facts = {
        "model": model.name,
        "version": options.version,
        "champion": champion,
        "incompatible": why_refused(asked, candidate.schema) or None,
        "warning": overlap.describe(options.version, "the prediction log") if overlap else None,
    }
    return found._replace(facts=facts | found.facts)


def _find_column(name: str, table: pa.Table) -> str:
    """Returns the column that an option names: an input's name is enough."""
    for column in (name, f"{INPUT}{name}"):
        if column in table.column_names:
            return column
    raise LifecycleError(f"--by: {no_column(name, [one.removeprefix(INPUT) for one in table.column_names])}")


def _schema_of(model: RegisteredModel, version: str) -> Schema:
    with model.asking(f"the signature of version {version} could not be read"):
        from mlflow.models import get_model_info

        try:
            found = schema_of(get_model_info(f"models:/{model.name}/{version}").signature)
        except PrepareError as error:
            raise LifecycleError(f"the signature of version {version} could not be read: {error}") from None
    if found is None:
        raise LifecycleError(f"version {version} has no signature, so its rows in the log cannot be read")
    return found


def _compare(
    sample: Sample,
    answers: Answers,
    *,
    by: dict[str, str],
    truths: Truths | None,
    champion: str,
    options: argparse.Namespace,
) -> Replay:
    n_rows, is_answered = sample.table.num_rows, answers.is_answered
    if not is_answered.any():
        ((why, _),) = answers.rejections.most_common(1)
        raise LifecycleError(f"version {options.version} rejects all {n_rows:,} rows: {why}")
    names = [name for name in sample.table.column_names if name in {*OWN, *by.values(), *options.on}]
    logged: pd.DataFrame = spread_probabilities(sample.table.select(names)).to_pandas(ignore_metadata=True)
    before, after = (rows[is_answered].reset_index(drop=True) for rows in (logged, answers.rows))
    changes = compare(before, after, options.tolerance)
    judgement = judge_answers(before, after, truths, champion, options) if truths is not None else None
    facts = {
        "from": logged["time"].min().isoformat(),
        "to": logged["time"].max().isoformat(),
        "rows_logged": sample.n_logged,
        "rows_asked": n_rows,
        "rejected": int((~is_answered).sum()),
        "rejections": [{"reason": why, "rows": n} for why, n in answers.rejections.most_common()],
        "answers": changes.kind,
        "tolerance": options.tolerance,
        "changes": changes.describe(np.ones(len(before), dtype=np.bool_)),
        "transitions": changes.transitions,
        "slices": [
            {"slice": f"{name} = {value}", **changes.describe(mask)}
            for name, column in by.items()
            for value, mask in slices(before[column].tolist())
        ],
        "truth": judgement.facts if judgement else None,
    }
    return Replay(facts, judgement.lines if judgement else [])
