"""From a version in the registry to a prepared model in the store."""

import datetime as dt
import errno
import logging
import shutil
from pathlib import Path

import msgspec

from serving.batching.policy import measure_costs
from serving.codecs.json import JsonDecoder
from serving.errors import ModelRefused, OutOfMemory, StorageError
from serving.model.digests import DIGEST_TAG, digest_of
from serving.model.libraries import library_versions
from serving.model.prepared import Manifest, Prepared, find_prepared, open_prepared, preparing, publish
from serving.model.schema import Inputs, Schema, join, take
from serving.monitoring.drift.reference import FILE, freeze
from serving.prepare.checks.examples import (
    MAX_EXAMPLES,
    example_body,
    logged_instances,
    reference_inputs,
    sample_inputs,
    sample_instances,
)
from serving.prepare.checks.failures import where_raised, why_not_predicted
from serving.prepare.checks.gate import (
    check_costs,
    check_digest,
    check_output,
    check_signature,
    check_slowdown,
    has_own_number_of_results,
)
from serving.prepare.checks.mlflow_path import check_mlflow_agrees
from serving.prepare.checks.trust import check_admission
from serving.prepare.compiling import Compiled, compile_model, is_rowwise
from serving.prepare.files import check_files, load, pull, pyfunc_answer, read_mlmodel, schema_of
from serving.prepare.importance import order_by_importance
from serving.prepare.nulls import learn_nulls
from serving.prepare.registry.resolution import Resolved
from serving.process.clock import unhindered_seconds
from serving.runtime import Output, Runtime, count_output, load_runtime
from serving.runtime.compiled.data import NotCompiled
from serving.runtime.native import NativeRuntime
from serving.runtime.trusted import Trust
from serving.settings import Settings

log = logging.getLogger("serving.prepare")


REFERENCE_SECONDS = 10
"""Time for the model's answers to the reference rows."""

N_TIMED_CALLS = 3
"""The fastest counts."""


def prepare(resolved: Resolved, settings: Settings, champion: str | None = None) -> Prepared:
    """Returns the prepared model of a version that passes the gate; prepares it if necessary.

    Args:
        resolved: the version.
        settings: of the service.
        champion: the tag of the current model, for comparison.

    Raises:
        PrepareError: says in one line what is missing or wrong.
    """
    try:
        found = find_prepared(resolved.name, resolved.version, resolved.source_key, library_versions())
        if found is None:
            with preparing(resolved.name) as folder:
                # Another process may have prepared it while this one waited.
                found = find_prepared(
                    resolved.name, resolved.version, resolved.source_key, library_versions()
                )
                found = found or _prepare(resolved, folder, settings, champion)
        # Another service, with other settings, may have prepared it.
        check_admission(found.manifest, settings)
    except ModelRefused as error:
        raise ModelRefused(f"{resolved.title} is refused: {error}") from error
    except MemoryError as error:
        raise OutOfMemory(
            f"{resolved.title} is refused: it needs more memory than is available "
            "(SERVING_PREPARE_MEMORY_MB); give it more, or log a smaller model or example"
        ) from error
    except OSError as error:
        raise _storage_error(error) from error
    else:
        return found


def _storage_error(error: OSError) -> StorageError:
    reasons = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
    reason = reasons.get(error.errno or 0, error.strerror or type(error).__name__)
    return StorageError(
        f"the prepared model cannot be written under BENTOML_HOME: {reason}; make room there, or let this user write"
    )


def _prepare(resolved: Resolved, folder: Path, settings: Settings, champion: str | None) -> Prepared:
    model_folder = folder / "mlflow"
    pull(resolved, model_folder, settings)
    mlmodel = read_mlmodel(model_folder, resolved, settings)
    schema = schema_of(mlmodel)
    answering = _open_champion(champion)
    digest = digest_of(model_folder)
    check_digest(digest, resolved.tags.get(DIGEST_TAG))
    files = check_files(model_folder, mlmodel, settings)
    check_signature(answering.schema if answering else None, schema, resolved.tags)
    outputs = mlmodel["signature"].get("outputs")
    must_be_per_row = settings.answer_rows == "same" and not has_own_number_of_results(outputs)
    runtime, files = load(model_folder, schema, files, settings, is_per_row=must_be_per_row)
    logged = logged_instances(model_folder, mlmodel, schema)
    examples, is_logged = example_body(logged, schema, runtime.model)
    (folder / "examples.json").write_bytes(examples)
    sample = sample_inputs(logged, schema, examples)
    nulls = learn_nulls(runtime, schema, sample)
    if nulls:
        schema = schema_of(mlmodel, nulls)
        runtime = runtime.with_schema(schema)
        sample = sample_inputs(logged, schema, examples)
    native_seconds, is_per_row = _warm_up(runtime, schema, examples, is_logged=is_logged)
    if answering is not None:
        # Before comparing thousands of rows, each of which may take seconds.
        check_slowdown("a row", answering.manifest.native_seconds, native_seconds, settings.max_slowdown)
    compiled, reason = _compile(runtime, schema, sample, folder / "compiled", resolved)
    check_mlflow_agrees(
        compiled.runtime if compiled else runtime,
        runtime,
        schema,
        mlmodel["signature"]["inputs"],
        sample_instances(logged, examples),
    )
    quickest = compiled.runtime if compiled else runtime
    logged_rows = reference_inputs(model_folder, schema)
    rows = sample if logged_rows is None else logged_rows
    answered = _answer_reference(quickest, rows, 0 if compiled else native_seconds)
    frozen = freeze(schema, rows, answered, is_sample=logged_rows is not None)
    frozen = order_by_importance(frozen, quickest, rows)
    (folder / FILE).write_bytes(msgspec.json.encode(frozen))
    reference = model_folder / "reference.json"
    if reference.exists():
        shutil.copy(reference, folder / "reference.json")
    signature = mlmodel["signature"]
    manifest = Manifest(
        name=resolved.name,
        version=resolved.version,
        run_id=resolved.run_id,
        source_key=resolved.source_key,
        digest=digest,
        inputs=signature["inputs"],
        outputs=outputs,
        params=signature.get("params"),
        nulls=nulls,
        flavors=sorted(mlmodel["flavors"]),
        task=runtime.description.task,
        classes=runtime.description.classes,
        has_probabilities=runtime.description.has_probabilities,
        runtime="native" if compiled is None else "mixed" if compiled.native_steps else "compiled",
        native_reason=reason,
        native_steps=compiled.native_steps if compiled else [],
        parity=compiled.parity if compiled else None,
        native_seconds=native_seconds,
        is_rowwise=compiled.is_rowwise
        if compiled is not None and compiled.is_rowwise is not None
        else is_rowwise(runtime, schema, sample),
        is_per_row=is_per_row,
        writers_code=files.writers_code,
        own_types=files.own_types,
        preprocessing_sha256=files.hook_digest,
        libraries=library_versions(),
        prepared_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        mlflow_version=str(mlmodel.get("mlflow_version", "")),
        pyfunc=pyfunc_answer(mlmodel["flavors"]),
        semantic_version=resolved.semantic_version,
    )
    if answering is not None:
        _compare_costs(folder, manifest, examples, answering, settings)
    prepared = publish(folder, manifest)
    log.info("prepared %s version %s as %s", manifest.name, manifest.version, prepared.tag)
    return prepared


def _answer_reference(runtime: Runtime, sample: Inputs, row_seconds: float) -> Output | None:
    """Returns the model's answer to the reference, or to as many of its rows as take `REFERENCE_SECONDS`."""
    n_rows = (
        min(sample.n_rows, max(1, int(REFERENCE_SECONDS / row_seconds))) if row_seconds else sample.n_rows
    )
    try:
        output = runtime.predict(take(sample, 0, n_rows), {})
    except MemoryError:
        raise
    except Exception:  # it is logged, and the inputs are still compared
        log.warning("outputs are not compared for drift: the model raised on the reference", exc_info=True)
        return None
    return output if count_output(output) == n_rows else None


def _open_champion(tag: str | None) -> Prepared | None:
    if tag is None:
        return None
    try:
        return open_prepared(tag)
    except (OSError, msgspec.MsgspecError):
        log.warning("the current model %s cannot be read; the new version is not compared with it", tag)
        return None


def _compare_costs(
    folder: Path, manifest: Manifest, examples: bytes, answering: Prepared, settings: Settings
) -> None:
    """Compares the cost of calls of the new version and the current one, measured in this process."""
    try:
        check_admission(answering.manifest, settings)
    except ModelRefused as error:
        log.warning("the cost of a call is not compared with that of %s: %s", answering.tag, error)
        return
    costs = []
    for one, body in ((Prepared(folder, manifest), examples), (answering, answering.examples)):
        inputs, params = JsonDecoder(one.schema, MAX_EXAMPLES).predict(body)
        manifest = one.manifest
        runtime = load_runtime(
            manifest.runtime,
            one.folder,
            one.schema,
            Trust.of(manifest),
            n_threads=1,
            is_per_row=manifest.is_per_row,
        )
        costs.append(measure_costs(runtime.predict, inputs, params, unhindered_seconds))
    check_costs(costs[1], costs[0], settings.max_slowdown)


def _compile(
    native: NativeRuntime, schema: Schema, sample: Inputs, folder: Path, resolved: Resolved
) -> tuple[Compiled | None, str | None]:
    """The compiled model if its answers agree; and why the model, or its first steps, are not compiled."""
    try:
        compiled = compile_model(native, schema, sample, folder)
    except NotCompiled as error:
        shutil.rmtree(folder, ignore_errors=True)
        log.info("%s version %s is served natively: %s", resolved.name, resolved.version, error)
        return None, str(error)
    except (OSError, MemoryError):
        raise  # disk or memory is full
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        log.warning("compiling failed; serving natively", exc_info=True)
        return None, f"compiling it raised {type(error).__name__} in {where_raised(error)}"
    log.info(
        "%s version %s is compiled%s: %d rows compared, largest difference %.2g",
        resolved.name,
        resolved.version,
        f" except {', '.join(compiled.native_steps)} ({compiled.reason})" if compiled.native_steps else "",
        compiled.parity.rows,
        compiled.parity.max_abs_difference,
    )
    return compiled, compiled.reason


def _warm_up(
    runtime: NativeRuntime, schema: Schema, examples: bytes, *, is_logged: bool
) -> tuple[float, bool]:
    """Predicts the examples; returns the seconds per row after warm-up, and whether each row had one result."""
    inputs, params = JsonDecoder(schema, MAX_EXAMPLES).predict(examples)
    try:
        output = runtime.predict(inputs, params)
        # Examples often have one row, requests more.
        twice = runtime.predict(join([inputs] * 2), params)
        seconds = float("inf")
        for _ in range(N_TIMED_CALLS):
            started = unhindered_seconds()
            runtime.predict(inputs, params)
            seconds = min(seconds, (unhindered_seconds() - started) / inputs.n_rows)
    except MemoryError:
        raise
    except Exception as error:
        log.info("the model cannot predict its example", exc_info=True)
        raise ModelRefused(why_not_predicted(runtime, schema, inputs, error, is_logged=is_logged)) from error
    check_output(output, runtime.description)
    counts = count_output(output), count_output(twice)
    return seconds, counts == (inputs.n_rows, 2 * inputs.n_rows)
