#!/bin/sh
# A page to make sounds on: sh egs/tta/studio/run.sh [options]; --help names them
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
sh "$root/utils/setup.sh" requirements.txt egs/tta/studio/requirements.txt
. "$root/utils/environment.sh"
exec "$PYTHON" bins/tta/studio.py "$@"
