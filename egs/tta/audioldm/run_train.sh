#!/bin/sh
# Stage 2: sh egs/tta/audioldm/run_train.sh [--config F] [--exp_name NAME] [key.path=value ...]
# One process for each visible GPU; the same command again resumes.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
. "$root/utils/launch.sh"
launch bins/tta/train.py --config egs/tta/audioldm/exp_config.json "$@"
