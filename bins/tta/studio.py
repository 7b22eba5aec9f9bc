"""A page to make sounds on: sh egs/tta/studio/run.sh

Opens on this machine alone. With --host 0.0.0.0 others reach it, too, with the password that is
printed, or that of the environment variable STUDIO_PASSWORD.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from os.path import expanduser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from utils.cli import at_least_1, new_parser, run_main
from utils.errors import UserError

LOG_DIRS = ("ckpts/tta", "quickstart/runs")


def main() -> None:
    arguments = parse()
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is not installed; run: sh egs/tta/studio/run.sh")

    from models.tta.studio.server import serve
    from models.tta.studio.shelf import Limits, Shelf
    from models.tta.studio.studio import Studio
    from utils.device import best_device

    limits = Limits(arguments.max_seconds, arguments.max_sounds, upload_mb=arguments.max_upload_mb)
    log_dirs = arguments.log_dir or list(LOG_DIRS)
    device = best_device(arguments.device)
    shelf = Shelf(log_dirs, arguments.checkpoint_path or [], device, limits)
    serve(Studio(shelf, Path(arguments.output_dir)), arguments.host, arguments.port)


def parse() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument(
        "--log_dir",
        type=expanduser,
        action="append",
        help=f"where runs are looked for, may be given often; default: {', '.join(LOG_DIRS)}",
    )
    parser.add_argument(
        "--checkpoint_path",
        type=expanduser,
        action="append",
        help="a run besides (also an editor's or one of adapters), a checkpoint, or a published"
        " pipeline by folder or hub name; may be given often",
    )
    parser.add_argument(
        "--output_dir", type=expanduser, default="studio", help="default: %(default)s"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, this machine")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--max_seconds", type=float, default=30.0, help="of a sound; %(default)s")
    parser.add_argument("--max_sounds", type=at_least_1, default=8, help="at a time; %(default)s")
    parser.add_argument(
        "--max_upload_mb", type=at_least_1, default=20, help="of a file; %(default)s"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    return parser.parse_args()


if __name__ == "__main__":
    run_main(main)
