#!/bin/sh
# All tests, set-up included: sh tests/run.sh [pytest arguments]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
sh "$root/utils/setup.sh" requirements.txt tests/requirements.txt
. "$root/utils/environment.sh"
unset PYTHONDONTWRITEBYTECODE # or each of many processes compiles the project and its tests anew
exec "$PYTHON" -m pytest -n 3 --dist worksteal "$@"
