# `make serve` and `make test` need Python >= 3.11 and make; they install the rest into .venv.

PYTHON ?= $(firstword $(foreach python,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(python) -c 'import sys; print("$(python)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
UV ?= uv
DIST ?= dist
# Test files that run in parallel: 4 suit two processors, because services under test mostly wait.
JOBS ?= 4

SERVING := .venv/serving.stamp
DEV := .venv/dev.stamp
DEPLOY := .venv/deploy.stamp
DOCS := .venv/docs.stamp
AZURITE := .venv/azurite.stamp
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(LOCK_ARGS)

# For registries of older MLflow, whose libraries have no wheels for newer Python.
PYTHON_3_11 ?= python3.11
OLD := tests/registries
OLD_STAMPS := $(patsubst $(OLD)/requirements/%.in,$(OLD)/.venvs/%.stamp,$(wildcard $(OLD)/requirements/*.in))

MERMAID_SHA256 := 9f2807e402479d2864bfd9a95052076fc69d0ff45a0b25148b84b70fc33425b9

PROMETHEUS_RULE := k8s/components/monitoring/prometheusrule.yaml

export BENTOML_DO_NOT_TRACK := True
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: serve test soak zoo fuzz test-container test-manifests registries image rules lint docs sbom audit deploy-tools bench demo-promotion demo-drift pictures lock lock-bench lock-registries clean help

serve: $(SERVING)  ## serve the registry's model on port 3000 (PORT=...); trains a demo without MLFLOW_TRACKING_URI, or with DEMO=1
	@if [ -z "$${MLFLOW_TRACKING_URI:-}" ] || [ -n "$(DEMO)" ]; then \
		.venv/bin/python scripts/train.py --if-missing --promote --estimator forest --name "$${SERVING_MODEL_NAME:-churn}" \
			|| echo "starting anyway: not ready until the registry has a model"; fi
	@exec .venv/bin/python -m serving.process.start serve -p "$${PORT:-3000}"

test: $(DEV)  ## run all tests except those of test-container and registries (ARGS="-k name" for some, ARGS="-n 0" in one process)
	.venv/bin/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

soak: $(DEV)  ## run long tests: promotions under load, simulated canaries, generated models and rows (ARGS="-k name")
	SOAK=1 .venv/bin/python -m pytest -m soak -rP -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

zoo: $(DEV)  ## compare models of every kind with MLflow's own answers, and write docs/compatibility.md (ARGS="name" for some)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR=false \
		.venv/bin/python -m tests.zoo.run $(ARGS)

fuzz: $(DEV)  ## send damaged bodies, damaged HTTP, requests from the OpenAPI document; each for FUZZ_SECONDS=360 (FUZZ_SEED=...)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-360} .venv/bin/python -m pytest tests/fuzz -rP $(ARGS)

lint: $(DEV)  ## check lint rules, format, imports between packages, types, shell scripts and workflows
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-cache
	.venv/bin/mypy --strict service.py preprocessing.py serving scripts benchmarks container
	.venv/bin/shellcheck .ci/run container/*.sh scripts/*.sh
	.venv/bin/actionlint -shellcheck .venv/bin/shellcheck
	.venv/bin/zizmor --offline --quiet --persona auditor .github

docs: $(DOCS)  ## build the documentation as a site in dist/site, and check its links (needs npm)
	@.venv/docs/bin/python scripts/build_site.py

sbom: $(DEV)  ## write the images' bill of materials into dist/*.cdx.json (CycloneDX, from the locked requirements)
	@mkdir -p $(DIST)
	@for name in serving sealed; do \
		.venv/bin/cyclonedx-py requirements requirements/$$name.txt --output-reproducible --validate \
			--of JSON --output-file $(DIST)/$$name.cdx.json || exit 1; \
		echo "$(DIST)/$$name.cdx.json"; done

audit: $(DEV)  ## check the locked requirements against the vulnerability database
	@for name in serving sealed deploy registry; do \
		.venv/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
			--requirement requirements/$$name.txt || exit 1; done

deploy-tools: $(DEPLOY)  ## set up .venv for the scripts that talk to a cluster

test-manifests: $(DEV)  ## run the tests of k8s/, compose.yaml and monitoring/ only
	.venv/bin/python -m pytest tests/kubernetes tests/compose $(ARGS)

test-container: $(DEV)  ## build both kinds of image, and test them in a container engine
	.venv/bin/python -m pytest tests/container -s $(ARGS)

registries: $(DEV) $(OLD_STAMPS)  ## test the service and the scripts with older MLflow servers (needs Python 3.11)
	.venv/bin/python -m pytest $(OLD) -n 2 --dist loadgroup $(ARGS)

image: $(SERVING)  ## build the live image, or with MODEL_VERSION=3 one that contains the model (TAG=name:tag STORES=gcs,azure)
	@.venv/bin/python scripts/build_image.py $(if $(MODEL_VERSION),--model-version $(MODEL_VERSION)) \
		$(if $(TAG),--tag $(TAG)) $(if $(STORES),--stores $(STORES))

rules:  ## write monitoring/prometheus/rules.yaml into the PrometheusRule of k8s/components/monitoring
	@{ sed '/^spec:$$/q' $(PROMETHEUS_RULE); sed -n '/^groups:/,$$p' monitoring/prometheus/rules.yaml | sed 's/^./  &/'; } \
		> $(PROMETHEUS_RULE).new && mv $(PROMETHEUS_RULE).new $(PROMETHEUS_RULE)

demo-promotion: $(SERVING)  ## promote, reject and roll back under load, on the terminal (a minute)
	@.venv/bin/python scripts/demo_promotion.py

demo-drift: $(SERVING)  ## shift an input until /v1/drift names it, judge a challenger once truths arrive, on the terminal (two minutes)
	@.venv/bin/python scripts/demo_drift.py

pictures: $(DEV)  ## take the pictures in docs/pictures again: the demo, Swagger UI, the status page (needs chromium)
	.venv/bin/python scripts/record_demo.py
	.venv/bin/python scripts/take_screenshot.py

bench: $(SERVING)  ## measure against other servers, for half an hour (ARGS=--quick: short, numbers not meaningful)
	.venv/bin/python -m benchmarks $(ARGS)

lock:  ## regenerate requirements/*.txt from *.in (LOCK_ARGS=--upgrade for newer versions)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	$(LOCK) requirements/serving.in -o requirements/serving.txt
	$(LOCK) requirements/gcs.in -o requirements/gcs.txt
	$(LOCK) requirements/azure.in -o requirements/azure.txt
	$(LOCK) requirements/deploy.in -o requirements/deploy.txt
	$(LOCK) requirements/dev.in -o requirements/dev.txt
	$(LOCK) -c requirements/serving.txt requirements/sealed.in -o requirements/sealed.txt
	$(LOCK) requirements/registry.in -o requirements/registry.txt
	$(LOCK) requirements/docs.in -o requirements/docs.txt

lock-bench:  ## regenerate benchmarks/requirements/*.txt from *.in, at the versions of serving.txt
	@command -v $(UV) >/dev/null || { echo "make lock-bench needs uv: pip install uv"; exit 1; }
	@{ echo "# Numerical libraries at serving.txt's versions, for peers that conflict with the rest of it."; \
		sed -nE 's/^((cloudpickle|joblib|mlflow-skinny|numpy|pandas|pyarrow|scikit-learn|scipy|skops)==[^\]*[^\ ]).*/\1/p' \
		requirements/serving.txt; } > benchmarks/requirements/libraries.txt
	@for name in $(basename $(notdir $(wildcard benchmarks/requirements/*.in))); do \
		$(subst make lock,make lock-bench,$(LOCK)) benchmarks/requirements/$$name.in \
			-o benchmarks/requirements/$$name.txt || exit 1; done

lock-registries:  ## regenerate tests/registries/requirements/*.txt from *.in, each as of the date in its .in file
	@command -v $(UV) >/dev/null || { echo "make lock-registries needs uv: pip install uv"; exit 1; }
	@for file in $(wildcard $(OLD)/requirements/*.in); do \
		$(subst make lock,make lock-registries,$(LOCK)) --exclude-newer "$$(sed -n 's/^# As of //p' $$file)" \
			$$file -o "$${file%.in}.txt" || exit 1; done

clean:  ## remove .venv and caches; keep the registry (mlflow.db, mlruns/)
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/.venvs benchmarks/.work $(OLD)/.venvs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 17

# A stamp means that the current requirements are installed; an interrupted install leaves none.
# dev.txt contains serving.txt at the same versions, so installing it sets both stamps.

$(SERVING): requirements/serving.txt
	$(call install,$<)
	@touch $@

$(DEV): requirements/dev.txt requirements/serving.txt
	$(call install,$<)
	@touch $(SERVING) $@

# An emulator of Azure Blob Storage for the tests of artifact stores, with dependencies as of a date.
$(AZURITE): | $(DEV)
	@npm install --silent --no-save --no-package-lock --before=2026-11-20 --prefix .venv/azurite azurite@3.37.0
	@touch $@

# In a separate environment, so that the versions in .venv stay. Mermaid has no dependencies.
$(DOCS): requirements/docs.txt
	$(find-python)
	@echo "installing $< into .venv/docs"
	@$(PYTHON) -m venv --clear .venv/docs
	@.venv/docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@npm install --silent --no-save --no-package-lock --prefix .venv/docs @mermaid-js/tiny@12.0.0
	@echo "$(MERMAID_SHA256)  .venv/docs/node_modules/@mermaid-js/tiny/dist/mermaid.tiny.js" | sha256sum --check --quiet
	@touch $@

$(OLD)/.venvs/%.stamp: $(OLD)/requirements/%.txt
	@command -v $(PYTHON_3_11) >/dev/null || { echo "make registries needs Python 3.11 (PYTHON_3_11=...)"; exit 1; }
	@echo "installing $< into $(basename $@) (a few minutes the first time)"
	@$(PYTHON_3_11) -m venv --clear $(basename $@)
	@$(basename $@)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(DEPLOY): requirements/deploy.txt requirements/serving.txt
	$(call install,$<)
	@touch $(SERVING) $@

define find-python
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; python3 here is older or missing"; exit 1; }
endef

define install
	$(find-python)
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "installing $(1) into .venv (a few minutes the first time)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
endef
