#!/usr/bin/env bash
# Runs a command while the service of a namespace (SERVICE; model-server) is at localhost:3000 (PORT), and ends with its
# exit code.
#
#   scripts/with_service.sh model-server .venv/bin/python scripts/smoke_test.py http://localhost:3000
#
# Needs kubectl. It is one pod that is reached, until it ends; for longer watching take a URL that stays.
set -euo pipefail

namespace=${1:?with_service.sh: name the namespace, and a command}
shift
port=${PORT:-3000}
kubectl port-forward --namespace "$namespace" "service/${SERVICE:-model-server}" "$port:http" >/dev/null &
forwarding=$!
trap 'kill "$forwarding" 2>/dev/null || true' EXIT
for _ in {1..60}; do
  if (exec 3<>"/dev/tcp/localhost/$port") 2>/dev/null; then
    "$@"
    exit
  fi
  if ! kill -0 "$forwarding" 2>/dev/null; then
    echo "with_service.sh: the service of $namespace cannot be reached" >&2
    exit 2
  fi
  sleep 0.5
done
echo "with_service.sh: the service of $namespace cannot be reached within 30 s" >&2
exit 2
