#!/bin/sh
# Few steps: sh egs/tta/audioldm/run_distil.sh [--config F] [--exp_name NAME] [key.path=value ...]
# From a run along a flow (train.init_from) to a flow map, which samples in 1, 2 or 4 steps.
# One process for each visible GPU; the same command again resumes.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
. "$root/utils/launch.sh"
launch bins/tta/train.py --config egs/tta/audioldm/exp_config_distil.json "$@"
