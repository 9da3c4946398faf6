#!/usr/bin/env bash
# Prints an image's reference by digest, if a workflow has signed it.
#
#   scripts/verify_image.sh registry.example/model-server:1.0.0 '^https://github\.com/OWNER/REPOSITORY/\.github/workflows/release\.yaml@'
#
# The second argument is a pattern of the signer's identity. The digest is the verified one, even if the tag moves. Needs
# docker with buildx, and cosign. Exit code other than 0 if the image is missing, or no such signer has signed it.
set -euo pipefail

image=${1:?verify_image.sh: expected an image, and a pattern of its signer}
identity=${2:?verify_image.sh: expected a pattern of the signer}
digest=$(docker buildx imagetools inspect "$image" --format '{{json .Manifest}}' |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])')
if [[ ! $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
  echo "verify_image.sh: $image has no digest" >&2
  exit 1
fi
name=${image%@*}
# A colon before the last slash belongs to a port.
[[ ${name##*/} != *:* ]] || name=${name%:*}
cosign verify --certificate-identity-regexp "$identity" \
  --certificate-oidc-issuer "${OIDC_ISSUER:-https://token.actions.githubusercontent.com}" "$name@$digest" >&2
echo "$name@$digest"
