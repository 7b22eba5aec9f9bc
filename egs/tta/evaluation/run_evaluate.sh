#!/bin/sh
# Generated sounds measured against references:
#   sh egs/tta/evaluation/run_evaluate.sh --generated DIR --reference DATASET|DIR [...]
#   sh egs/tta/evaluation/run_evaluate.sh --checkpoint_path RUN --reference DATASET|DIR [...]
#   sh egs/tta/evaluation/run_evaluate.sh --edits DIR --triplets DATASET [--vae RUN] [--sdedit RUN] [...]
#   sh egs/tta/evaluation/run_evaluate.sh compare A.json B.json
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
exec "$PYTHON" bins/tta/evaluate.py "$@"
