"""What every entry point in bins/ shares: its config arguments and how its errors are shown."""

from __future__ import annotations

import argparse
import errno
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from utils.errors import UserError
from utils.memory import keep_memory
from utils.nearest import nearest

DISK_ERRORS = (  # that the user can put right: no room, no permission, a file for a folder, ...
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)


class Parser(argparse.ArgumentParser):
    """Shows the description as it is, takes options by their whole names, says how one is written.

    A parser with `overrides` (`add_config_arguments`) takes settings, key.path=value, too.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        """Ends the program; of what it does not know, the message names the right form."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        super().error(message + (self._form_of(words.split(" ")[0]) if unknown else ""))

    def check_overrides(self, overrides: Sequence[str]) -> None:
        """Ends the program where an option is written as if it were a setting."""
        for word in overrides:
            if f"--{word.partition('=')[0]}" in self._option_string_actions:
                self.error(f"unrecognized arguments: {word}")

    def _form_of(self, word: str) -> str:
        """How what was meant by an argument is written, as the end of a sentence."""
        parsers = [self]
        for action in self._actions:
            parsers += action.choices.values() if isinstance(action.choices, dict) else ()  # verbs
        options = {option for parser in parsers for option in parser._option_string_actions}
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            if not equals:
                return "; a value with blanks has to be in quotes"
            if f"--{name}" in options:
                return f"; here it is an option, --{name} {value}".rstrip()
            return nearest(f"--{name}", options)
        if any(action.dest == "overrides" for action in self._actions):
            near = nearest(name, options, 0.8)
            return near or f"; a setting has no dashes here, {name[2:]}={value or 'VALUE'}"
        return nearest(name, options)


def new_parser(description: str) -> Parser:
    return Parser(description=description)


def at_least_1(word: str) -> int:
    """An argument's type: a number of things."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} must be at least 1")
    return int(word)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Adds `--num_workers N`, one for each core that may be used unless it is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument(
        "--num_workers", type=at_least_1, default=cores or 1, help="default: %(default)s"
    )


def add_config_arguments(parser: argparse.ArgumentParser, default_config: str) -> None:
    """Adds `--config FILE` and the `key.path=value` overrides that may stand anywhere."""
    parser.add_argument(
        "--config", default=default_config, help="default: the script's own, else %(default)s"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key.path=value",
        help="settings that replace the config's, such as preprocess.processed_dir=/data",
    )


def parse_arguments(parser: Parser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses options and overrides in any order; what is neither ends the program with status 2."""
    words = sys.argv[1:] if arguments is None else arguments
    found = parser.parse_intermixed_args([with_home(word) for word in words])
    parser.check_overrides(getattr(found, "overrides", ()))
    return found


def named_values(values: Sequence[str], option: str) -> dict[str, str]:
    """The values NAME=PATH of an option that may be given several times, as a dictionary."""
    for value in values:
        if not all(value.partition("=")):
            raise UserError(f"{option} {value} must be NAME=PATH")
    return {name: path for name, _, path in (value.partition("=") for value in values)}


def with_home(word: str) -> str:
    """~/x, key=~/x and --option=~/x with the home folder in place of ~.

    A shell does it only where a word begins with ~.
    """
    name, path = re.fullmatch(r"([\w.-]+=)?(.*)", word, re.DOTALL).groups(default="")
    return name + os.path.expanduser(path) if path == "~" or path.startswith("~/") else word


def run_main(main: Callable[[], None]) -> None:
    """Runs an entry point; what the user can put right is one line on stderr, not a traceback.

    Exit status: 0 done, 2 a UserError or a disk that is full or may not be written to, 130 Ctrl-C,
    141 where nobody reads the output any more, as in `... | head`.
    """
    keep_memory()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        if not _discard_unread_output():
            raise
        sys.exit(141)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"error: {error.filename or 'disk'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _discard_unread_output() -> bool:
    """Whether stdout or stderr has no reader; what is left for it then goes nowhere."""
    found = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if poll.poll(0):  # an error or a hang-up, which are told without asking
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            found = True
    return found
