#!/usr/bin/env bash
# Forwards a port of localhost to the service of a namespace (SERVICE; model-server) while a command runs, and returns its
# exit code. Each {} in the command becomes the service's URL.
#
#   scripts/with_service.sh model-server .venv/bin/python scripts/smoke_test.py {}
#
# Needs kubectl. It reaches one pod, until that pod ends; to watch for longer, use a permanent URL. Exit code 2 if the
# service cannot be reached, or the forwarding ends during a command that succeeds.
set -euo pipefail

if [[ ${1:-} == --help ]]; then
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
fi
if (($# < 2)); then
  echo "with_service.sh: expected a namespace and a command" >&2
  exit 2
fi
namespace=$1
shift
output=$(mktemp)
# kubectl picks a free port: on a fixed one, another program might answer.
kubectl port-forward --namespace "$namespace" "service/${SERVICE:-model-server}" :http >"$output" &
forwarding=$!
trap 'kill "$forwarding" 2>/dev/null || true; rm -f "$output"' EXIT
for _ in {1..300}; do
  port=$(sed -nE 's/^Forwarding from 127\.0\.0\.1:([0-9]+) .*/\1/p' "$output")
  if [[ -n $port ]]; then
    code=0
    "${@//'{}'/http://127.0.0.1:$port}" || code=$?
    if ((code == 0)) && ! kill -0 "$forwarding" 2>/dev/null; then
      echo "with_service.sh: the connection to the service of $namespace was lost meanwhile" >&2
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
