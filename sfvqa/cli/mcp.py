"""`sfvqa mcp`: tools for other models to ask about videos, over the Model Context Protocol."""

import importlib.util
import os
from typing import TYPE_CHECKING

from sfvqa.cli.frames import expect_model
from sfvqa.cli.model import ModelOptions, import_once
from sfvqa.cli.options import BUNDLED_VIDEOS, CacheOptions, OutputOptions
from sfvqa.cli.serve import OpenFolders, ServerOptions, load_to_serve
from sfvqa.errors import ExitCode, ServerError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.serve.waiting_room import ServiceOptions

HELP = """\b
[bold]Examples[/bold]
  sfvqa mcp --folder ~/Videos
  sfvqa mcp --folder ~/Videos --model smolvlm2-500m

Let other models ask about videos, look at their frames, and find moments, over
the Model Context Protocol: a program that speaks it starts this command, and
talks to it on standard input and output. Only videos in folders given with
--folder can be asked about, and the bundled ones. The model is loaded at the
first question, and stays."""


def mcp(*, folder: OpenFolders = None, model: ModelOptions, cache: CacheOptions) -> None:
    """Check everything that can be checked, and serve; the model is loaded later."""
    if any(importlib.util.find_spec(name) is None for name in ("mcp", "prometheus_client")):
        raise ServerError("The libraries of MCP are not installed.", 'Run `pip install "sfvqa[mcp]"`.')
    server, output = ServerOptions(folder=folder), OutputOptions()  # stdout is the protocol's
    model.check()
    _, expected, _ = expect_model(model.model)
    notices = output.notices()
    import_once("sfvqa.serve.mcp", notices)
    from sfvqa.serve.mcp import serve
    from sfvqa.serve.sources import Folders

    def load() -> "tuple[VideoQA, ServiceOptions]":
        answerer, _, planned = load_to_serve(server, model, cache, output)
        return answerer, server.service(planned)

    opened = folder or []
    notices.note(f"Waiting for a client; {plural(len(opened), 'folder')} can be asked about.")
    if not serve(Folders([*opened, BUNDLED_VIDEOS]), load, expected):
        os._exit(ExitCode.OK)  # a thread is in the middle of what Python cannot end in order
