"""`sfvqa serve`: a model that stays loaded, for other programs, a page, and the next `ask`."""

import contextlib
import importlib.util
import os
import signal
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from sfvqa.checkpoints.find import locate
from sfvqa.cli.model import ModelOptions, check_fit, load
from sfvqa.cli.options import (
    AUTO,
    CacheOptions,
    Count,
    OptionGroup,
    OutputOptions,
    check_positive,
    check_size,
    option,
    parse_count,
    parse_size,
    rare_setting,
    setting,
)
from sfvqa.cli.screen import Notices, echo, print_json
from sfvqa.errors import ExitCode, ServerError, UsageError
from sfvqa.wording import plural

if TYPE_CHECKING:
    import socket

    from sfvqa.batch.plan import BatchOptions
    from sfvqa.checkpoints.find import ModelSettings
    from sfvqa.checkpoints.known import ModelSizes
    from sfvqa.checkpoints.plan import Plan
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.serve.status import Served, ServerStatus
    from sfvqa.serve.waiting_room import ServiceOptions

_LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_MOST_FRAMES = 128  # that a request may be about, where memory is not short
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

OpenFolders = Annotated[
    list[Path] | None, option("Let requests name the videos in this folder.", "--folder", metavar="FOLDER")
]
"""Whose videos others may name."""


@dataclass(frozen=True, kw_only=True)
class ServerOptions(OptionGroup):
    """Where the server listens, and what it takes on."""

    panel = "The server"

    host: Annotated[str, setting("Address to listen on.", metavar="HOST")] = "127.0.0.1"
    port: Annotated[int, setting("Port to listen on.", min=0, max=65535)] = 8484
    api_key: Annotated[
        str | None, setting("Key that requests must bring along; required outside this machine.", metavar="KEY")
    ] = None
    folder: OpenFolders = None
    batch_size: Annotated[
        Count,
        rare_setting(
            "Write up to N answers at a time; auto: as many as fit, at most 16.", metavar="N|auto", parser=parse_count
        ),
    ] = AUTO
    readers: Annotated[
        int | None, rare_setting("Read N videos at a time (default: depends on the number of cores).", min=1)
    ] = None
    read_timeout: Annotated[
        float,
        rare_setting("Give up if reading takes longer than this.", metavar="SECONDS", callback=check_positive),
    ] = 120.0
    max_requests: Annotated[int, rare_setting("Refuse requests while N are under way or wait.", min=1)] = 64
    max_frames: Annotated[
        int | None,
        rare_setting("Refuse requests for more frames (default: 128, or fewer where memory is short).", min=1),
    ] = None
    memory: Annotated[
        str,
        rare_setting(
            "Keep encoded videos and prompts in memory for further questions, up to SIZE.",
            metavar="SIZE",
            callback=check_size,
        ),
    ] = "1GB"
    max_upload: Annotated[str, rare_setting("Largest video that may be sent.", metavar="SIZE", callback=check_size)] = (
        "256MB"
    )
    uploads: Annotated[
        str, rare_setting("Keep uploads on disk, up to SIZE in all.", metavar="SIZE", callback=check_size)
    ] = "4GB"
    grace: Annotated[
        float, rare_setting("Seconds that requests have to be answered once the server is told to stop.", min=0.0)
    ] = 30.0

    def __post_init__(self) -> None:
        if self.api_key is not None and not self.api_key.strip():  # an unset variable, most likely
            raise UsageError("The API key is empty.", "Give one, or leave out --api-key.")
        if self.host not in ("localhost", "127.0.0.1", "::1") and self.api_key is None:
            raise UsageError(
                f"Anybody who reaches {self.host} could ask.", "Add --api-key, or listen on 127.0.0.1 only."
            )
        for folder in self.folder or ():
            if not folder.is_dir():
                raise UsageError(f"“{folder}” is no folder.", "Name a folder with videos.")

    def plan(self, settings: "ModelSettings", sizes: "ModelSizes") -> "tuple[Plan, BatchOptions]":
        """How the model will run, and how much at a time, as of a batch of questions about as many videos."""
        from sfvqa.batch.plan import LARGEST_BATCH, BatchModel, BatchOptions, default_num_readers
        from sfvqa.checkpoints.memory import NUM_TEXT_TOKENS
        from sfvqa.video.readers import ReadOptions

        trained = sizes.trained_with.sampling
        return BatchModel(
            settings,
            fewer_frames=False,
            num_text_tokens=NUM_TEXT_TOKENS,
            batch_size=self.batch_size.number,
            num_questions=LARGEST_BATCH,
            num_videos=LARGEST_BATCH,
        ).plan(
            BatchOptions(
                sampling=replace(trained, num_frames=self.max_frames or trained.num_frames),
                reading=ReadOptions(timeout_seconds=self.read_timeout),
                num_readers=self.readers or default_num_readers(),
            )
        )

    def service(self, planned: "BatchOptions") -> "ServiceOptions":
        """What a planned server takes on at a time."""
        from sfvqa.serve.waiting_room import ServiceOptions

        num_frames, together = planned.sampling.num_frames, planned.sampling.num_frames * planned.batch_size
        return ServiceOptions(
            batch_size=planned.batch_size,
            most_requests=self.max_requests,
            num_readers=planned.num_readers,
            most_frames=self.max_frames or max(num_frames, min(_MOST_FRAMES, together)),
            most_frames_together=together,
            kept_bytes=parse_size(self.memory),
        )

    def listen(self) -> "socket.socket":
        """Take the port. ServerError where that is not possible."""
        from sfvqa.serve.running import listen

        try:
            return listen(self.host, self.port)
        except OSError as error:
            raise ServerError(
                f"Port {self.port} of {self.host} cannot be used: {error.strerror}.", "Choose another --port."
            ) from error


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
    if any(importlib.util.find_spec(name) is None for name in _LIBRARIES):
        raise ServerError("The server's libraries are not installed.", 'Run `pip install "sfvqa[serve]"`.')
    model.check()
    notices, listening = output.notices(), server.listen()
    answerer, served, planned = load_to_serve(server, model, cache, output)
    from sfvqa.serve import running
    from sfvqa.serve.status import ServerStatus, servers

    list(servers())  # which removes what those left behind that were killed
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    options = running.ServeOptions(
        host=server.host,
        port=port,
        api_key=server.api_key,
        folders=tuple(server.folder or ()),
        largest_video_bytes=parse_size(server.max_upload),
        uploads_bytes=parse_size(server.uploads),
        grace_seconds=server.grace,
        reading=planned.reading_within_limits,
        service=server.service(planned),
    )
    notices.note(f"{served.model} answers at {url}; {plural(len(options.folders), 'folder')} can be asked about.")
    if not running.serve(answerer, listening, options, ServerStatus.new(url, served, server.grace)):
        os._exit(ExitCode.OK)  # a thread is in the middle of what Python cannot end in order


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


def load_to_serve(
    server: ServerOptions, model: ModelOptions, cache: CacheOptions, output: OutputOptions
) -> "tuple[VideoQA, Served, BatchOptions]":
    """Choose and load the model as `ask` would; what a command must know to be answered as by itself; and the plan."""
    of_choice, of_plan = (_HeardNotices(quiet=output.quiet, verbose=output.verbose) for _ in range(2))
    sizes = model.choose(of_choice)
    from sfvqa.checkpoints.plan import make_plan
    from sfvqa.serve.status import Served, asked_for_as_dict, downloads_as_they_are, model_files

    settings = model.settings(sizes.name)
    one = make_plan(settings, sizes)  # as `ask` chooses: otherwise it would not be answered here
    check_fit(one, None, of_plan)
    plan, planned = server.plan(one.settings, sizes)
    if one.fit.fits and not plan.fit.fits:
        output.notices().warn(plan.check()[-1])
    folder = Path() if model.random_weights else locate(sizes.name).folder.resolve()
    files = [] if model.random_weights else model_files(folder, settings.adapter)
    downloads = downloads_as_they_are()
    answerer = load(plan.settings, cache.open(), of_plan)
    served = Served(
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
    return answerer, served, planned


def show_servers(output: OutputOptions, *, stop: bool) -> None:
    """Print the servers that run or, with `stop`, those that have ended now. ServerError for one that does not."""
    from sfvqa.serve.status import servers

    found = list(servers())
    for each in found if stop else ():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if each.is_running:  # looked at again: who else looks for servers holds a dead one's lock for a moment
                os.kill(each.pid, signal.SIGTERM)  # which Windows has no way to hear: it ends there and then
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
            by_force = f"taskkill /F /PID {status.pid}" if os.name == "nt" else f"kill -9 {status.pid}"
            raise ServerError(f"The server with process {status.pid} does not end.", f"End it with `{by_force}`.")
        time.sleep(_LOOK_SECONDS)
    status.remove()  # what one leaves that Windows ended
