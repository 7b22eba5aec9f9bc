#!/bin/sh
# A sentence to a wav: sh egs/tta/audioldm/run_inference.sh --text "A man is whistling"
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
exec "$PYTHON" bins/tta/inference.py "$@"
