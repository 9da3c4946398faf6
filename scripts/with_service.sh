#!/usr/bin/env bash
# Runs a command while the service of a namespace (SERVICE; model-server) is at a port of localhost, and ends with its
# exit code. Each {} in the command becomes its URL.
#
#   scripts/with_service.sh model-server .venv/bin/python scripts/smoke_test.py {}
#
# Needs kubectl. It is one pod that is reached, until it ends; for longer watching take a URL that stays. Exit code 2
# when it cannot be reached, or not to the end of a command that succeeded.
set -euo pipefail

if (($# < 2)); then
  echo "with_service.sh: name the namespace, and a command" >&2
  exit 2
fi
namespace=$1
shift
output=$(mktemp)
# kubectl takes a port that is free: at one of our choice there may be something else, which would answer instead.
kubectl port-forward --namespace "$namespace" "service/${SERVICE:-model-server}" :http >"$output" &
forwarding=$!
trap 'kill "$forwarding" 2>/dev/null || true; rm -f "$output"' EXIT
for _ in {1..300}; do
  port=$(sed -nE 's/^Forwarding from 127\.0\.0\.1:([0-9]+) .*/\1/p' "$output")
  if [[ -n $port ]]; then
    code=0
    "${@//'{}'/http://127.0.0.1:$port}" || code=$?
    if ((code == 0)) && ! kill -0 "$forwarding" 2>/dev/null; then
      echo "with_service.sh: the way to the service of $namespace has ended meanwhile" >&2
      exit 2
    fi
    exit "$code"
  fi
  if ! kill -0 "$forwarding" 2>/dev/null; then
    echo "with_service.sh: the service of $namespace cannot be reached" >&2
    exit 2
  fi
  sleep 0.1
done
echo "with_service.sh: the service of $namespace cannot be reached within 30 s" >&2
exit 2
