#!/usr/bin/env bash
# Runs promote.py, rollback.py, shadow.py or history.py in a Job inside the cluster, shows what it prints, and ends with
# its exit code. There, http://model-server-pods:3000 has the address of each pod, and each is asked.
#
#   scripts/in_cluster.sh model-server promote.py 8 --url http://model-server-pods:3000 --watch 300
#
# The first argument is the namespace. Needs kubectl, jq, and k8s/components/scripts in the overlay. Ctrl-C and SIGTERM
# end the script in the Job, which puts everything back. Exit code 2 when it cannot be run.
set -euo pipefail

fail() {
  echo "in_cluster.sh: $1" >&2
  exit 2
}

(($# >= 2)) || fail "expected a namespace and a script, such as: model-server history.py"
namespace=$1
script=$2
shift 2
case $script in
  promote.py | rollback.py | shadow.py | history.py) ;;
  *) fail "unknown script $script: expected promote.py, rollback.py, shadow.py or history.py" ;;
esac
command -v jq >/dev/null || fail "jq is not installed"
kube=(kubectl --namespace "$namespace")

template=$("${kube[@]}" get cronjob model-server-scripts --output json) ||
  fail "no template for Jobs in the namespace $namespace; add k8s/components/scripts to the overlay"
# $LOGNAME is who the record of the move names.
job=$(jq --arg name "${script%.py}" --arg who "${GITHUB_ACTOR:-${GITLAB_USER_LOGIN:-$(id -un)}}" '{
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {generateName: "\($name)-", labels: .metadata.labels},
    spec: .spec.jobTemplate.spec
  } | .spec.template.spec.containers[0] |= (
    .args = ["/home/bentoml/bento/src/scripts/\($name).py", $ARGS.positional[]]
    | .env += [{name: "LOGNAME", value: $who}]
  )' --args -- "$@" <<<"$template" | "${kube[@]}" create --validate=false --output name --filename -) ||
  fail "the Job could not be created"
job=${job#job.batch/}
echo "in_cluster.sh: job $job in the namespace $namespace" >&2

pod() {
  "${kube[@]}" get pods --selector "batch.kubernetes.io/job-name=$job" --output "jsonpath={.items[*]$1}" || true
}

logs=
stop() {
  trap '' INT TERM
  echo "in_cluster.sh: ends $job" >&2
  "${kube[@]}" delete job "$job" --wait=false >/dev/null || true
  [[ -z $logs ]] || wait "$logs" || true
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

for ((waited = 0; ; waited++)); do
  case $(pod .status.phase) in
    Running | Succeeded | Failed) break ;;
  esac
  why="$(pod '.status.containerStatuses[*].state.waiting.reason'): $(pod '.status.containerStatuses[*].state.waiting.message')"
  [[ $why != ": " ]] || why=$(pod '.status.conditions[?(@.status=="False")].message')
  case $why in
    ErrImagePull* | ImagePullBackOff* | InvalidImageName* | CreateContainer*Error*) waited=600 ;;
  esac
  if ((waited >= 600)); then
    echo "in_cluster.sh: the pod of $job does not start: $why" >&2
    stop 2
  fi
  ((waited % 30 != 29)) || echo "in_cluster.sh: $job waits to start${why:+: $why}" >&2
  sleep 1
done
# In the background, so that a signal is handled at once.
"${kube[@]}" logs --follow "$(pod .metadata.name)" &
logs=$!
wait "$logs" || true
while code=$(pod '.status.containerStatuses[0].state.terminated.exitCode'); [[ -z $code ]]; do
  [[ -n $(pod .metadata.name) ]] || fail "the pod of $job is gone; what it did is in history.py"
  sleep 1
done
exit "$code"
