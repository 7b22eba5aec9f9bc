#!/bin/sh
# Triplets for editing, of data sets that are prepared already:
#   sh egs/tta/audit/run_preprocess.sh [--config F] [--num_workers N] [key.path=value ...]
# A second run does only what is missing or stale.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
exec "$PYTHON" bins/tta/preprocess_edits.py "$@"
