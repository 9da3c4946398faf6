#!/usr/bin/env bash
# Pushes an image under a tag that its registry does not have yet, and prints it by its digest, as it was pushed.
#
#   scripts/push_image.sh registry.example/model-server:1.0.0
#
# Exit code 2 when the tag is there already, or nobody can tell. Who pushes the same tag at the same moment is not seen:
# a registry that can keep tags from being moved should.
set -euo pipefail

image=${1:?push_image.sh: name the image, with its tag}
if found=$(docker manifest inspect ${INSECURE:+--insecure} "$image" 2>&1); then
  echo "push_image.sh: $image is there already, and no tag is moved" >&2
  exit 2
fi
if ! grep -qiE 'no such manifest|manifest unknown|name unknown' <<<"$found"; then
  echo "push_image.sh: nobody can tell whether $image is there already: ${found##*$'\n'}" >&2
  exit 2
fi
docker push --quiet "$image" >&2
docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" | grep -m1 -F "${image%:*}@"
