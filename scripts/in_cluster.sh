#!/usr/bin/env bash
# Runs promote.py, rollback.py, shadow.py, history.py, or with the log's volume replay.py, evaluate.py or predictions.py in a
# Job inside the cluster, prints its output and exits with its exit code. There, http://model-server-pods:3000 has the
# address of every pod, and the script asks each.
#
#   scripts/in_cluster.sh model-server promote.py 8 --url http://model-server-pods:3000 --watch 300
#
# The first argument is the namespace. Needs kubectl, jq, and k8s/components/scripts in the overlay. Ctrl-C and SIGTERM
# end the script in the Job, which rolls back. Exit code 2 if nothing was run, 3 if the result is unknown.
set -euo pipefail

fail() {
  echo "in_cluster.sh: $1" >&2
  exit "${2:-2}"
}

if [[ ${1:-} == --help ]]; then
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
  exit
fi
(($# >= 2)) || fail "expected a namespace and a script, such as: model-server history.py"
namespace=$1
script=$2
shift 2
case $script in
  promote.py | rollback.py | shadow.py | history.py | replay.py | evaluate.py | predictions.py) ;;
  *) fail "unknown script $script: expected promote.py, rollback.py, shadow.py, history.py, replay.py, evaluate.py or predictions.py" ;;
esac
command -v jq >/dev/null || fail "jq is not installed"
kube=(kubectl --namespace "$namespace")

template=$("${kube[@]}" get cronjob model-server-scripts --output json) ||
  fail "cannot read the cronjob model-server-scripts in the namespace $namespace; if it is not there, add k8s/components/scripts to the overlay"
# The record of the move names $LOGNAME. Kubernetes expands $(NAME) in arguments, passwords too; $$ is a dollar sign.
job=$(jq --arg name "${script%.py}" --arg who "${GITHUB_ACTOR:-${GITLAB_USER_LOGIN:-$(id -un)}}" '{
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: {generateName: "\($name)-", labels: {"app.kubernetes.io/name": "model-server-scripts"}},
    spec: .spec.jobTemplate.spec
  } | .spec.template.spec.containers[0] |= (
    .args = ["/home/bentoml/bento/src/scripts/\($name).py", ($ARGS.positional[] | gsub("[$]"; "$$"))]
    | .env += [{name: "LOGNAME", value: $who}]
  )' --args -- "$@" <<<"$template" | "${kube[@]}" create --validate=false --output name --filename -) ||
  fail "the Job could not be created"
job=${job#job.batch/}
echo "in_cluster.sh: job $job in the namespace $namespace" >&2

logs=
stop() {
  trap '' INT TERM
  echo "in_cluster.sh: ends $job" >&2
  "${kube[@]}" delete job "$job" --wait=false >/dev/null ||
    fail "the job $job could not be deleted and may go on; kubectl delete job $job --namespace $namespace ends it" 3
  [[ -z $logs ]] || wait "$logs" || true
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

# Prints one of: waiting WHY, running POD, ended CODE, rejected WHY, gone. Asks again while the cluster does not answer.
state() {
  local pods misses
  for ((misses = 0; ; misses++)); do
    ! pods=$("${kube[@]}" get pods --selector "batch.kubernetes.io/job-name=$job" --output json) || break
    ((misses < 60)) || fail "the cluster does not answer, and $job may still run; history.py knows what it did" 3
    sleep 2
  done
  jq --raw-output '.items[0] | if . == null then "gone"
    else . as $pod | (.status.containerStatuses // [] | map(select(.name == "scripts")) | .[0].state) as $state
    | if $state.terminated then "ended \($state.terminated.exitCode)"
      elif .status.phase == "Failed" then "rejected \(.status.reason): \(.status.message)"
      elif $state.running then "running \($pod.metadata.name)"
      elif $state.waiting then "waiting \($state.waiting.reason): \($state.waiting.message // "")"
      else "waiting \([.status.conditions[]? | select(.status == "False") | .message] | join("; "))" end end' <<<"$pods"
}

for ((waited = 0; ; waited++)); do
  said=$(state)
  case $said in
    running\ * | ended\ * | rejected\ *) break ;;
    "waiting ErrImagePull"* | "waiting ImagePullBackOff"* | "waiting InvalidImageName"* | "waiting CreateContainer"*Error*)
      waited=600
      ;;
  esac
  if ((waited >= 600)); then
    echo "in_cluster.sh: the pod of $job does not start: ${said#waiting }" >&2
    stop 2
  fi
  ((waited % 30 != 29)) || echo "in_cluster.sh: $job waits: ${said#waiting }" >&2
  sleep 1
done
if [[ $said == running\ * || $said == ended\ * ]]; then
  # In the background, so that a signal is handled at once. Where the connection breaks, it goes on.
  while
    "${kube[@]}" logs --follow --selector "batch.kubernetes.io/job-name=$job" --container scripts --tail=-1 &
    logs=$!
    wait "$logs" || true
    said=$(state)
    [[ $said == running\ * ]]
  do
    sleep 2
  done
fi
case $said in
  ended\ *) exit "${said#ended }" ;;
  rejected\ *) fail "the node rejected the pod of $job: ${said#rejected }" ;;
  *) fail "the pod of $job is gone; history.py knows what it did" 3 ;;
esac
