"""The studio on a port: the page, the files that it shows, and who may see them."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from models.tta.studio.events import HERE
from models.tta.studio.guard import Guarded, failed
from models.tta.studio.page import make_page, theme
from models.tta.studio.runs import trainings
from models.tta.studio.studio import QUICKSTART, Studio
from models.tta.studio.uploads import receive
from utils.errors import UserError

OF_QUICKSTART = re.compile(r"index\.html|sounds/\d+\.(wav|png)", re.ASCII)
NOT_THERE = PlainTextResponse("there is no such file", 404)
CLOSED = ("component_server", "process_recording")  # gradio's, which take forms, too
LOCAL = ("127.0.0.1", "localhost", "::1")


class Files:
    """Addresses of sounds, pictures and receipts; each person sees the own ones."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def routes(self) -> list[Route]:
        return [
            Route("/sounds/{name}", self.sound),
            Route("/sources/{name}", self.source),
            Route("/sounds.zip", self.zipped),
            Route("/runs/{run}/{step}/{name}", self.sample),
            Route("/quickstart/{path:path}", self.quickstart),
            Route("/gradio_api/upload", self.upload, methods=["POST"]),
            Route("/gradio_api/upload_progress", self.upload_progress),
            *(Route(f"/gradio_api/{name}", self.closed, methods=["POST"]) for name in CLOSED),
        ]

    def sound(self, request: Request) -> Response:
        return self._file(request, self.studio.history.file)

    def source(self, request: Request) -> Response:
        return self._file(request, self.studio.source)

    def _file(self, request: Request, find: Callable[[str, str], Path]) -> Response:
        if (who := logged_in(request)) is None:
            return PlainTextResponse("log in first", 401)
        try:
            return FileResponse(find(who, request.path_params["name"]))
        except UserError:
            return NOT_THERE

    def zipped(self, request: Request) -> Response:
        if (who := logged_in(request)) is None:
            return PlainTextResponse("log in first", 401)
        with tempfile.NamedTemporaryFile(dir=os.environ["GRADIO_TEMP_DIR"], delete=False) as file:
            self.studio.history.zip_into(file, who)
        gone = BackgroundTask(os.unlink, file.name)
        return FileResponse(file.name, filename="sounds.zip", background=gone)

    def sample(self, request: Request) -> Response:
        if logged_in(request) is None:
            return PlainTextResponse("log in first", 401)
        wanted = tuple(request.path_params[part] for part in ("run", "step", "name"))
        for run in trainings(self.studio.shelf.log_dirs):
            for path in run.sounds:
                if wanted == (run.folder.name, path.parent.name, path.name):
                    return FileResponse(path)
        return NOT_THERE

    def quickstart(self, request: Request) -> Response:
        if logged_in(request) is None:
            return PlainTextResponse("log in first", 401)
        path = request.path_params["path"]
        if not OF_QUICKSTART.fullmatch(path) or not (QUICKSTART / path).is_file():
            return NOT_THERE
        return FileResponse(QUICKSTART / path)

    async def upload(self, request: Request) -> Response:
        """In place of gradio's own, which takes a thousand files and keeps what it refused."""
        if logged_in(request) is None:
            return PlainTextResponse("log in first", 401)
        path = await receive(request, self.studio.limits.upload_mb * 10**6)
        return JSONResponse([str(path)])

    def upload_progress(self, request: Request) -> Response:
        """A page asks for it; a sound is sent in a moment."""
        return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    def closed(self, request: Request) -> Response:
        return NOT_THERE


def logged_in(request: Request) -> str | None:
    """The name of the login, "" where none is asked for, None where it is missing.

    As gradio's own get_current_user has it.
    """
    app = request.app
    if app.auth is None:
        return ""
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return next((app.tokens[c] for n in names if (c := request.cookies.get(n)) in app.tokens), None)


def serve(studio: Studio, host: str, port: int) -> None:
    """Serves until Ctrl-C. Beyond this machine there is a password, and every name may use it.

    Raises UserError where the port is taken.
    """
    password = os.environ.get("STUDIO_PASSWORD", "")
    if host not in LOCAL and not password:
        password = secrets.token_urlsafe(9)
        print(f"password: {password}", flush=True)
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}") from None
    folder = studio.history.folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".uploads-", dir=folder) as uploads:
        app = make_app(studio, Path(uploads), password)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        )
        print(
            f"the studio: http://{host}:{listening.getsockname()[1]}  (Ctrl-C ends it)", flush=True
        )
        server.run(sockets=[listening])


def make_app(studio: Studio, uploads: Path, password: str = "") -> FastAPI:
    """The page and its files. What is uploaded lies in `uploads` until it is used."""
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.resolve())  # gradio has no other way to say it
    auth = {}
    if password:
        auth = {
            "auth": lambda _, given: hmac.compare_digest(given.encode(), password.encode()),
            "auth_message": "Any name: it keeps your sounds apart from those of others.",
        }
    page = make_page(studio).queue(default_concurrency_limit=None)
    upload = studio.limits.upload_mb * 10**6
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guarded, most=upload + 10**6)  # with a form around it
    return gr.mount_gradio_app(
        app,
        page,
        path="",
        app_kwargs={
            "routes": Files(studio).routes(),
            "exception_handlers": {Exception: failed},
        },
        max_file_size=upload,
        theme=theme(),
        css_paths=HERE / "studio.css",
        footer_links=["api"],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        **auth,
    )
