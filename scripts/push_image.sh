#!/usr/bin/env bash
# Pushes an image under a tag that its registry does not have yet, and prints its reference by digest.
#
#   scripts/push_image.sh registry.example/model-server:1.0.0
#
# A tag that already has the same image is fine, so that the steps after a push can be retried. Exit code 2 if it has
# another image, if that cannot be checked, or without a tag. A push of the same tag at the same moment goes unnoticed:
# turn on immutable tags if the registry has them. Needs docker and python3.
set -euo pipefail

# A colon before the last slash belongs to a port, and a reference with a digest was pushed already.
if [[ $# != 1 || $1 == *@* || ! $1 =~ ^[a-z0-9][^:]*(:[0-9]+/[^:]+)?:[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]]; then
  echo "push_image.sh: expected an image with a tag: scripts/push_image.sh registry.example/model-server:1.0.0" >&2
  exit 2
fi
image=$1
# Docker's own store names an image by the digest of its configuration, containerd's by that of its manifest.
read_digests='
import json, sys
found = json.load(sys.stdin)
if isinstance(found, dict):
    manifest = found.get("SchemaV2Manifest") or found.get("OCIManifest") or {}
    print(found["Descriptor"]["digest"], manifest.get("config", {}).get("digest", ""))
'
if found=$(docker manifest inspect --verbose ${INSECURE:+--insecure} "$image" 2>&1); then
  read -r digest configuration < <(python3 -c "$read_digests" <<<"$found") || true
  ours=$(docker image inspect --format '{{.Id}}' "$image")
  if [[ -n ${digest:-} && ($ours == "$digest" || $ours == "${configuration:-}") ]]; then
    echo "push_image.sh: $image exists already, with the same image" >&2
    echo "${image%:*}@$digest"
    exit
  fi
  echo "push_image.sh: $image exists already, with another image; push under a new tag" >&2
  exit 2
fi
if ! grep -qiE 'no such manifest|manifest unknown|name unknown' <<<"$found"; then
  echo "push_image.sh: cannot check whether $image exists: ${found##*$'\n'}" >&2
  exit 2
fi
docker push --quiet "$image" >&2
docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" | grep -m1 -F "${image%:*}@"
