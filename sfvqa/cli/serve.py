"""`sfvqa serve`: a model that stays loaded, for other programs, a page, and the next `ask`."""

import importlib.util
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sfvqa.cli.model import ModelOptions, load
from sfvqa.cli.options import CacheOptions, OptionGroup, OutputOptions, option, parse_size, rare_setting, setting
from sfvqa.cli.screen import echo, print_json
from sfvqa.errors import ServerError, UsageError
from sfvqa.wording import plural

HELP = """\b
[bold]Examples[/bold]
  sfvqa serve --folder ~/Videos              (and open http://127.0.0.1:8484)
  sfvqa serve --model slowfast-7b --quant 4bit
  sfvqa serve --host 0.0.0.0 --api-key "$KEY"
  sfvqa serve --status
  sfvqa serve --stop

Keep a model loaded and answer over HTTP, in OpenAI's form. Only this machine can
ask unless a host and a key are given; only videos that are sent, or lie in a
folder given with --folder, can be asked about."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions(OptionGroup):
    """Where the server listens, and what it takes on."""

    panel = "The server"

    host: Annotated[str, setting("Address to listen on.", metavar="HOST")] = "127.0.0.1"
    port: Annotated[int, setting("Port to listen on.", min=0, max=65535)] = 8484
    api_key: Annotated[
        str | None, setting("Key that requests must bring along; required outside this machine.", metavar="KEY")
    ] = None
    folder: Annotated[
        list[Path] | None, option("Let requests name the videos in this folder.", "--folder", metavar="FOLDER")
    ] = None
    max_upload: Annotated[str, rare_setting("Largest video that may be sent.", metavar="SIZE")] = "256MB"
    grace: Annotated[
        float, rare_setting("Seconds that running answers have to end once the server is told to stop.", min=0.0)
    ] = 30.0

    def __post_init__(self) -> None:
        if self.host not in ("localhost", "127.0.0.1", "::1") and not self.api_key:
            raise UsageError(
                f"Anybody who reaches {self.host} could ask.", "Add --api-key, or listen on 127.0.0.1 only."
            )
        for folder in self.folder or ():
            if not folder.is_dir():
                raise UsageError(f"“{folder}” is no folder.", "Name a folder with videos.")


def serve(
    *,
    server: ServerOptions,
    model: ModelOptions,
    cache: CacheOptions,
    status: Annotated[bool, option("Show the servers that run, and leave.")] = False,
    stop: Annotated[bool, option("Stop the servers that run, and leave.")] = False,
    output: OutputOptions,
) -> None:
    """Load, listen, answer."""
    from sfvqa.serve.status import ServerStatus, servers

    if status or stop:
        found = list(servers())
        for each in found:
            if stop:
                os.kill(each.pid, signal.SIGTERM)
            if output.json:
                print_json(each.shown())
            else:
                echo(f"{each.model} at {each.url}, process {each.pid}")
        if not found:
            output.notices().note("No server is running.")
        return
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise ServerError("The server's libraries are not installed.", "Run `pip install 'sfvqa[serve]'`.")
    model.check()
    notices = output.notices()
    from sfvqa.serve.running import ServeOptions, listen
    from sfvqa.serve.running import serve as run

    sizes = model.choose(notices)
    settings = model.settings(sizes.name)
    try:
        listening = listen(server.host, server.port)
    except OSError as error:
        raise ServerError(
            f"Port {server.port} of {server.host} cannot be used: {error.strerror}.", "Choose another --port."
        ) from error
    answerer = load(settings, cache.open(), notices)
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    options = ServeOptions(
        host=server.host,
        port=port,
        api_key=server.api_key,
        folders=tuple(server.folder or ()),
        largest_video_bytes=parse_size(server.max_upload),
        grace_seconds=server.grace,
    )
    notices.note(f"{sizes.name} answers at {url}; {plural(len(options.folders), 'folder')} can be asked about.")
    run(answerer, listening, options, ServerStatus.new(url, sizes.name, settings, is_named=model.model is not None))
