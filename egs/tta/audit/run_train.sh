#!/bin/sh
# The editor: sh egs/tta/audit/run_train.sh [--config F] [--exp_name NAME] [key.path=value ...]
# One process for each visible GPU; the same command again resumes.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
. "$root/utils/launch.sh"
launch bins/tta/train.py --config egs/tta/audit/exp_config.json "$@"
