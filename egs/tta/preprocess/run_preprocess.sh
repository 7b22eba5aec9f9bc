#!/bin/sh
# wav + captions to mel + JSON:
#   sh egs/tta/preprocess/run_preprocess.sh [--config F] [--num_workers N] [key.path=value ...]
# A second run does only what is missing or stale.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
exec "$PYTHON" bins/tta/preprocess.py "$@"
