#!/bin/sh
# A sound and a sentence to another sound:
# sh egs/tta/audit/run_edit.sh --audio street.wav --text "Drop the sound of the dog barking"
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.." && pwd)
. "$root/utils/environment.sh"
exec "$PYTHON" bins/tta/edit.py "$@"
