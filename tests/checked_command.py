"""python -m tests.checked_command PROGRAM ARGUMENTS: reads them as the program does, and stops.

PROGRAM is a file of bins/ or `accelerate`. Options, settings and config files are checked by the
program's own parser and by the config's loader; no work is done.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from config.load import load_config


def stop_after(parse):
    """`parse`, a method of ArgumentParser, that ends the program once the config is loaded."""

    def checked(self, *arguments):
        values = parse(self, *arguments)
        if getattr(values, "config", None) is not None:
            load_config(values.config, getattr(values, "overrides", ()))
        print("checked:", *sys.argv)
        raise SystemExit(0)

    return checked


def main() -> None:
    program, *arguments = sys.argv[1:]
    if program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        assert arguments.pop(0) == "launch"
        values = launch_command_parser().parse_args(arguments)
        program, arguments = values.training_script, values.training_script_args
    assert Path(program).parts[0] == "bins", program
    for name in ("parse_args", "parse_intermixed_args"):
        method = getattr(argparse.ArgumentParser, name)
        setattr(argparse.ArgumentParser, name, stop_after(method))
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
