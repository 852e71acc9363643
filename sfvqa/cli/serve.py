"""`sfvqa serve`: a model that stays loaded, for other programs, a page, and the next `ask`."""

import contextlib
import importlib.util
import os
import signal
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sfvqa.checkpoints.find import locate
from sfvqa.cli.model import ModelOptions, check_fit, load
from sfvqa.cli.options import CacheOptions, OptionGroup, OutputOptions, option, parse_size, rare_setting, setting
from sfvqa.cli.screen import Notices, echo, print_json
from sfvqa.errors import ServerError, UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.serve.status import Served, ServerStatus

_LOOK_SECONDS = 0.05
_LAST_SECONDS = 30.0  # that a server has to end, once its answers have

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
    stop: Annotated[bool, option("Stop the servers that run, and leave once they have ended.")] = False,
    output: OutputOptions,
) -> None:
    """Load, listen, answer."""
    if status and stop:
        raise UsageError("--status and --stop contradict each other.", "Leave one of them out.")
    if status or stop:
        show_servers(output, stop=stop)
        return
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise ServerError("The server's libraries are not installed.", "Run `pip install 'sfvqa[serve]'`.")
    model.check()
    notices = output.notices()
    from sfvqa.serve.running import ServeOptions, listen
    from sfvqa.serve.running import serve as run
    from sfvqa.serve.status import ServerStatus

    try:
        listening = listen(server.host, server.port)
    except OSError as error:
        raise ServerError(
            f"Port {server.port} of {server.host} cannot be used: {error.strerror}.", "Choose another --port."
        ) from error
    answerer, served = load_to_serve(model, cache, output)
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
    notices.note(f"{served.model} answers at {url}; {plural(len(options.folders), 'folder')} can be asked about.")
    run(answerer, listening, options, ServerStatus.new(url, served, server.grace))


class _HeardNotices(Notices):
    """Keeps what is said, to be said again where the server answers in place of a command."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        super().__init__(quiet=quiet, verbose=verbose)
        self.said: list[list[str]] = []

    def warn(self, text: str, *, again: bool = False) -> None:
        """Keep a warning."""
        self.said.append(["warn", text])
        super().warn(text, again=again)

    def note(self, text: str) -> None:
        """Keep a note."""
        self.said.append(["note", text])
        super().note(text)

    def hint(self, text: str, *, style: str = "dim") -> None:
        """Keep a hint."""
        self.said.append(["hint", text])
        super().hint(text, style=style)

    def detail(self, text: str) -> None:
        """Keep a detail."""
        self.said.append(["detail", text])
        super().detail(text)


def load_to_serve(model: ModelOptions, cache: CacheOptions, output: OutputOptions) -> "tuple[VideoQA, Served]":
    """Choose and load the model as `ask` would, and what a command must know to be answered as by itself."""
    of_choice, of_plan = (_HeardNotices(quiet=output.quiet, verbose=output.verbose) for _ in range(2))
    sizes = model.choose(of_choice)
    from sfvqa.checkpoints.plan import make_plan
    from sfvqa.serve.status import Served, asked_for_as_dict, downloads_as_they_are, model_files

    settings = model.settings(sizes.name)
    plan = make_plan(settings, sizes)
    check_fit(plan, None, of_plan)
    folder = Path() if model.random_weights else locate(sizes.name).folder.resolve()
    files, downloads = [] if model.random_weights else model_files(folder), downloads_as_they_are()
    answerer = load(plan.settings, cache.open(), of_plan)
    return answerer, Served(
        model=sizes.name,
        asked_for=asked_for_as_dict(None if model.model is None else sizes.name, settings),
        quantization=plan.settings.quantization,
        folder=str(folder),
        files=files,
        downloads=downloads,
        num_frames=sizes.trained_with.sampling.num_frames,
        strategy=sizes.trained_with.sampling.strategy.value,
        cache_bytes=None if cache.no_cache or cache.full_hash else parse_size(cache.cache_size),
        said_of_choice=of_choice.said,
        said_of_plan=of_plan.said,
    )


def show_servers(output: OutputOptions, *, stop: bool) -> None:
    """Print the servers that run or, with `stop`, those that have ended now. ServerError for one that does not."""
    from sfvqa.serve.status import servers

    found = list(servers())
    for each in found if stop else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGTERM)
    for each in found:
        if stop:
            with output.notices().waiting(f"Waiting for the end of process {each.pid}"):
                _wait_until_gone(each)
        if output.json:
            print_json({**each.shown(), "is_running": not stop})
        else:
            since = datetime.fromtimestamp(each.started_at).astimezone().isoformat(" ", "minutes")
            now = "stopped" if stop else f"since {since}"
            echo(f"{each.served.model} at {each.url}, process {each.pid}, {now}")
    if not found:
        output.notices().note("No server is running.")


def _wait_until_gone(status: "ServerStatus") -> None:
    deadline = time.monotonic() + status.grace_seconds + _LAST_SECONDS
    while status.is_running:
        if time.monotonic() > deadline:
            raise ServerError(
                f"The server with process {status.pid} does not end.", f"End it with `kill -9 {status.pid}`."
            )
        time.sleep(_LOOK_SECONDS)
