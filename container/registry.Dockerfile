# MLflow's tracking server, for compose.yaml and k8s/examples/registry:
#
#   docker build --file container/registry.Dockerfile --tag registry.example/mlflow:3.17.2 requirements
#   scripts/push_image.sh registry.example/mlflow:3.17.2
FROM python:3.11-slim
COPY registry.txt /
RUN pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --require-hashes -r /registry.txt \
    && useradd --uid 1035 --no-create-home --shell /usr/sbin/nologin mlflow \
    && install -d -o 1035 -g 1035 /var/lib/mlflow
USER 1035:1035
