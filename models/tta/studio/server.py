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
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.tta.studio.events import HERE
from models.tta.studio.page import make_page, theme
from models.tta.studio.runs import trainings
from models.tta.studio.studio import QUICKSTART, Studio
from utils.errors import UserError

OF_QUICKSTART = re.compile(r"index\.html|sounds/\d+\.(wav|png)", re.ASCII)
NOT_THERE = PlainTextResponse("there is no such file", 404)
TOO_LARGE = "File size exceeded maximum: see --max_upload_mb"
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


class Limited:
    """An application that is told of no request larger than `most` bytes, whatever it is for."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        left = self.most

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, TOO_LARGE)
            return message

        if int(Headers(scope=scope).get("content-length", 0)) > self.most:
            return await PlainTextResponse(TOO_LARGE, 413)(scope, receive, send)
        return await self.app(scope, counted, send)


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
    """The page and its files. What is uploaded lies in `uploads`, until an hour later."""
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
    app.add_middleware(Limited, most=upload + 10**6)  # with a form around it
    return gr.mount_gradio_app(
        app,
        page,
        path="",
        app_kwargs={"routes": Files(studio).routes()},
        max_file_size=upload,
        theme=theme(),
        css_paths=HERE / "studio.css",
        footer_links=["api"],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        **auth,
    )
