#!/usr/bin/env bash
# Prints an image by its digest, if a workflow has signed it.
#
#   scripts/verify_image.sh registry.example/model-server:1.0.0 '^https://github\.com/OWNER/REPOSITORY/\.github/workflows/release\.yaml@'
#
# The second one is a pattern of who signed it. What is printed is what was verified, whatever becomes of the tag. Needs
# docker with buildx, and cosign. Exit code other than 0 when it is not there, or nobody like that has signed it.
set -euo pipefail

image=${1:?verify_image.sh: name the image, and who has signed it}
identity=${2:?verify_image.sh: say who has signed it}
digest=$(docker buildx imagetools inspect "$image" --format '{{json .Manifest}}' |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])')
if [[ ! $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
  echo "verify_image.sh: $image has no digest" >&2
  exit 1
fi
name=${image%@*}
# A colon before the last slash is that of a port.
[[ ${name##*/} != *:* ]] || name=${name%:*}
cosign verify --certificate-identity-regexp "$identity" \
  --certificate-oidc-issuer "${OIDC_ISSUER:-https://token.actions.githubusercontent.com}" "$name@$digest" >&2
echo "$name@$digest"
