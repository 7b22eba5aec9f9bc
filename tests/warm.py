"""Programs in processes of their own that start at once: forked from one that imported everything.

They can be killed like any process.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import runpy
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tiny import ROOT

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "models.base.run",
        "models.base.dry_run",
        "models.tta.autoencoder.training",
        "models.tta.editing.training",
        "models.tta.ldm.training",
        "models.vocoders.training",
        "bins.tta.train",
        "torch.utils.tensorboard",
        "diffusers",
        "accelerate.commands.launch",
        "tests.preloaded",
    ]
)
# Workers of preprocessing are forked from the same: what they ask for is among these.
multiprocessing.forkserver.set_forkserver_preload = lambda names: None
SHARED = "ARION_TESTS_FORKSERVER"  # in the environment: the address of the server to use
SAVES = ("/step-", "/.step-", "/final", "/.final")  # in the paths of a checkpoint and of final/


def share() -> None:
    """Starts the server, which processes that are started from here then use, too."""
    multiprocessing.forkserver.ensure_running()
    os.environ[SHARED] = multiprocessing.forkserver._forkserver._forkserver_address


if SHARED in os.environ:  # Python has no public way to use another process's server
    _server = multiprocessing.forkserver._forkserver
    _server._forkserver_address = os.environ[SHARED]
    _server._forkserver_alive_fd = os.pipe()[1]  # the other process's keeps it alive
    _server.ensure_running = multiprocessing.resource_tracker.ensure_running


@dataclass
class Trap:
    """Sends its own process a signal at the `count`-th file operation (from 1) on such paths."""

    paths: tuple[str, ...]
    count: int
    signal: int = signal.SIGKILL
    group: bool = False  # to all its children as well

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            return
        if any(part in str(arguments[0]) for part in self.paths):
            self.count -= 1
            if self.count == 0:
                (os.killpg if self.group else os.kill)(os.getpid(), self.signal)


def start(log: Path, *arguments: object, trap: Trap | None = None, **environment: str):
    """Starts bins/tta/train.py with its output in `log`; returns the process."""
    texts = [str(argument) for argument in arguments]
    process = FORKS.Process(target=_train, args=(log, texts, trap, environment))
    process.start()
    return process


def run(log: Path, *arguments: object, trap: Trap | None = None) -> int:
    """Trains to the end; the exit status."""
    process = start(log, *arguments, trap=trap)
    process.join()
    return process.exitcode


def run_together(log: Path, count: int, *arguments: object) -> list[int]:
    """As a launcher does it: `count` processes that train together; their exit statuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        start(log, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(count)
    ]
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def start_call(function: Callable, *arguments: object):
    """Starts a function in a process and session of its own; returns the process."""
    process = FORKS.Process(target=_call, args=(function, arguments))
    process.start()
    return process


def _call(function: Callable, arguments: tuple) -> None:
    os.setsid()
    _fork_again()
    function(*arguments)


def _fork_again() -> None:
    """A program's own processes start at once, too, not from a server that imports all again."""
    from processors import mel_folder

    multiprocessing.set_start_method("fork", force=True)
    mel_folder.get_all_start_methods = lambda: ["fork"]
    mel_folder.get_context = lambda _: multiprocessing.get_context("fork")


def _train(log: Path, arguments: list[str], trap: Trap | None, environment: dict) -> None:
    os.setsid()
    _fork_again()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what nohup starts ignores it
    os.chdir(ROOT)
    os.environ.update(environment, CUDA_VISIBLE_DEVICES="")
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["train.py", *arguments]
    if trap is not None:
        sys.addaudithook(trap)
    from bins.tta.train import main
    from utils.cli import run_main

    run_main(main)


# ---------------------------------------------------------------- for shell scripts

# A stand-in for Python whose programs of bins/ start at once, too, and modules of the tests.
PYTHON = """#!{python} -IS
import json, os, socket, sys

if not " ".join(sys.argv[1:3]).startswith(("bins/", "-m tests.")):
    os.execv("{python}", ["{python}", *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect("{address}")
    socket.send_fds(server, [b"!"], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit((server.recv(1) or b"\\1")[0])
"""


@contextmanager
def python(folder: Path) -> Iterator[Path]:
    """A folder that scripts take for a virtual environment, with that stand-in as its Python."""
    address, program = folder / "socket", folder / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(PYTHON.format(python=sys.executable, address=address))
    program.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        server = FORKS.Process(target=_serve, args=(listener,))
        server.start()
    try:
        yield folder
    finally:
        server.terminate()
        server.join()
        shutil.rmtree(folder)


def _serve(listener: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    if hasattr(os, "sched_setaffinity"):  # preprocessing starts a worker for each core
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            client.sendall(bytes([_run_program(client)]))
            os._exit(0)
        client.close()


def _run_program(client: socket.socket) -> int:
    """Runs what a stand-in was asked to; the exit status."""
    _, descriptors, _, _ = socket.recv_fds(client, 1, 3)
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    _fork_again()
    with client.makefile("rb") as asked:
        arguments, folder, environment = json.loads(asked.read())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__")
        else:
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
    except SystemExit as ended:
        return ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
