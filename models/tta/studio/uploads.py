"""Files on their way: what is sent to the server, until it is used, and what it gives away.

They lie in a folder of the server's, each in one of its own, under no name that was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from models.tta.studio.guard import TOO_LARGE

SENT, GIVEN = "sent-", "wav-"  # what the names of folders begin with
UNUSED = 300.0  # seconds that a file waits to be used: a page does so at once
HOUR = 3600.0  # seconds that what is given away is there for, at least
MOST = 50  # files that wait at the same time
SUFFIX = re.compile(r"\.\w{1,8}", re.ASCII)  # by which gradio knows a sound


def _folder() -> Path:
    return Path(os.environ["GRADIO_TEMP_DIR"])


def _new(prefix: str) -> Path:
    """A new folder; what is too old goes, and with it the empty files that gradio leaves."""
    for old in _folder().iterdir():
        with contextlib.suppress(FileNotFoundError):
            longest = UNUSED if old.name.startswith(SENT) else HOUR
            if old.stat().st_mtime > time.time() - longest:
                continue
            if old.is_dir():
                shutil.rmtree(old, ignore_errors=True)
            else:
                old.unlink()
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_folder()))


async def receive(request: Request, most: int) -> Path:
    """Where the one file of a form is now.

    Raises HTTPException for more than one, for one of more than `most` bytes and where too many
    wait; nothing is kept then. The parts of a form are in files without names until they are here.
    """
    async with request.form(max_files=1, max_fields=0) as form:
        file = form.get("files")
        if not isinstance(file, UploadFile):
            raise HTTPException(400, "there is no file; send one as files")
        if file.size > most:
            raise HTTPException(413, TOO_LARGE)
        into = _new(SENT)
        if len(list(_folder().glob(f"{SENT}*"))) > MOST:
            into.rmdir()
            raise HTTPException(503, f"{MOST} files are waiting; try again in a while")
        suffix = Path(file.filename or "").suffix
        path = into / f"sound{suffix if SUFFIX.fullmatch(suffix) else ''}"
        with path.open("wb") as kept:
            await asyncio.to_thread(shutil.copyfileobj, file.file, kept)
        return path


@contextlib.contextmanager
def used_up(path: str | None) -> Iterator[None]:
    """Within it a file that was sent is used; then it is gone, whatever came of it."""
    try:
        yield
    finally:
        folder = Path(path or "").parent
        if folder.parent == _folder() and folder.name.startswith(SENT):
            shutil.rmtree(folder, ignore_errors=True)


def given_away(path: Path) -> str:
    """A copy that gradio may give away, as it gives nothing of other folders."""
    return shutil.copy(path, _new(GIVEN))
