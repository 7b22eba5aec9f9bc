"""What a page never sends: refused in words, with one line in the server's log for each fault."""

from __future__ import annotations

import contextlib
import logging
import traceback
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.tta.studio.turns import NOT_WORKED

TOO_LARGE = "File size exceeded maximum: see --max_upload_mb"
log = logging.getLogger("arion")


def log_fault(error: BaseException) -> None:
    """One line: what was raised, and where."""
    words = " ".join(str(error).split())[:200]
    words = "".join(sign if sign.isprintable() else "?" for sign in words)
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename}:{last.lineno}"
    log.warning("a request failed: %s: %s (%s)", type(error).__name__, words, place)


class Page(gr.Blocks):
    """Blocks whose functions, and what gradio does before and after them, tell of a fault so.

    Gradio itself prints a traceback of each, also where a client sent values of a wrong number or
    type, which none of its own pages does.
    """

    async def process_api(
        self, block_fn: Any, inputs: list[Any], *arguments: Any, **keywords: Any
    ) -> dict[str, Any]:
        try:
            if any(isinstance(i, dict) and is_http_url_like(i.get("path")) for i in inputs):
                # Gradio would fetch it, of any size.
                raise gr.Error("send the file itself: no address is fetched")
            return await super().process_api(block_fn, inputs, *arguments, **keywords)
        except gr.Error as error:
            raise gr.Error(error.message, print_exception=False) from None
        except Exception as error:
            log_fault(error)
            raise gr.Error(NOT_WORKED, print_exception=False) from None


def failed(request: Request, error: Exception) -> Response:
    """What a client gets where a route raised something; `Guarded` logs it."""
    return PlainTextResponse(NOT_WORKED, 500)


class Guarded:
    """An application that is told of no request larger than `most` bytes, whatever it is for.

    What it raises is logged in a line; an answer that has begun by then ends.
    """

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
        try:
            return await self.app(scope, counted, send)
        except Exception as error:
            log_fault(error)
            with contextlib.suppress(RuntimeError):  # where the answer has its end already
                await send({"type": "http.response.body"})
