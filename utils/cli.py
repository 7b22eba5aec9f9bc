"""What every entry point in bins/ shares: its config arguments and how its errors are shown."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Sequence

from utils.errors import UserError
from utils.memory import keep_memory

DISK_ERRORS = (  # that the user can put right: no room, no permission, a file for a folder, ...
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)


def add_config_arguments(parser: argparse.ArgumentParser, default_config: str) -> None:
    """Adds `--config FILE` and the `key.path=value` overrides that may stand anywhere."""
    parser.add_argument("--config", default=default_config, help="default: %(default)s")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="settings that replace the config's, such as preprocess.processed_dir=/data",
    )


def parse_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parses options and overrides in any order; what is neither ends the program with status 2."""
    return parser.parse_intermixed_args(arguments)


def run_main(main: Callable[[], None]) -> None:
    """Runs an entry point; what the user can put right is one line on stderr, not a traceback.

    Exit status: 0 done, 2 a UserError or a disk that is full or may not be written to, 130 Ctrl-C.
    """
    keep_memory()
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"error: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
