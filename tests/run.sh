#!/bin/sh
# All tests, set-up included: sh tests/run.sh [pytest arguments]
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
sh "$root/utils/setup.sh" requirements.txt tests/requirements.txt
. "$root/utils/environment.sh"
exec "$PYTHON" -m pytest -n 3 --dist worksteal "$@"
