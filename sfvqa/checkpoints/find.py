"""Which model is to run and how, and the folder its checkpoint is in. Looks on this machine only; imports no torch.

Which commit of a repository was pulled first is kept in a small JSON file, so that a new one on the hub changes nothing
unasked.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from sfvqa.checkpoints.adapter import Adapter, how_to_use
from sfvqa.errors import CheckpointError, ModelError, ModelNotDownloadedError, UnknownModelError, UsageError
from sfvqa.registry import (
    SUGGESTED_SPEECH_MODEL,
    ModelSpec,
    PublishedModel,
    SpeechSpec,
    find_model,
    load_registry,
)
from sfvqa.wording import readable_size

AUTO = "auto"


@dataclass(frozen=True)
class ModelSettings:
    """Which model to run, by name or folder, and how; `auto` leaves the choice to the machine.

    - `device`: auto, cpu, cuda, cuda:N or mps; `dtype`: auto, float32, bfloat16 or float16.
    - `attention`: sdpa, eager or flash_attention_2; `quantization`: none, 8bit, 4bit or auto.
    - `random_weights`: build a model of models.toml without its weights, to measure it.
    - `adapter`: the folder of a LoRA adapter that is merged into the model.
    """

    name: str | Path
    device: str = AUTO
    dtype: str = AUTO
    attention: str = "sdpa"
    quantization: str = AUTO
    random_weights: bool = False
    adapter: str | None = None

    @property
    def title(self) -> str:
        """What to call the model, with the name of its adapter's folder and of the run that this lies in."""
        return str(self.name) if self.adapter is None else f"{self.name} with {Adapter.of(self.adapter).name}"


RECORDS_FILE = "revisions.json"
SCHEMA_VERSION = 1
DEFAULT_REVISION = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def records_path() -> Path:
    """Where commits are recorded: SFVQA_REVISIONS, else revisions.json in the user's data folder."""
    import platformdirs

    override = os.environ.get("SFVQA_REVISIONS")
    return Path(override) if override else Path(platformdirs.user_data_dir("sfvqa", appauthor=False)) / RECORDS_FILE


def is_commit(revision: object) -> bool:
    """Whether a revision is the full hash of a commit, which never means another one."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def fixed_commit(spec: PublishedModel) -> str | None:
    """The commit of a model: pinned in models.toml, else recorded; None before the first pull.

    Raises ModelError that names a record that cannot be read.
    """
    return spec.revision if is_commit(spec.revision) else _read().get(_key(spec))


def record_commit(spec: PublishedModel, commit: str) -> None:
    """Record the commit of a model, unless models.toml pins one."""
    if not is_commit(spec.revision):
        _write(_read() | {_key(spec): commit})


def forget_commit(spec: PublishedModel) -> None:
    """Let the next pull of a model take the newest commit."""
    records = _read()
    if records.pop(_key(spec), None) is not None:
        _write(records)


def _key(spec: PublishedModel) -> str:
    return f"{spec.repo_id}@{spec.revision or DEFAULT_REVISION}"


def _read() -> dict[str, str]:
    path = records_path()
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        revisions: dict[str, str] | None = document.get("revisions") if isinstance(document, dict) else None
        if not isinstance(revisions, dict):
            raise ValueError("it has no `revisions`")
        if document.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"its schema_version is {document.get('schema_version')!r}, not {SCHEMA_VERSION}")
        if (wrong := next((key for key in revisions if not is_commit(revisions[key])), None)) is not None:
            raise ValueError(f"{revisions[wrong]!r} for {wrong} is not a commit")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(
            f"The record of pulled commits, {path}, cannot be read: {error}.",
            "Remove that file: the next `sfvqa models pull NAME` writes a new one.",
        ) from error
    return revisions


def _write(records: dict[str, str]) -> None:
    """Write beside the file and rename, so that nobody ever reads half of it."""
    path = records_path()
    document = {"schema_version": SCHEMA_VERSION, "revisions": dict(sorted(records.items()))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as beside:
            written = Path(beside) / path.name
            written.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            written.replace(path)
    except OSError as error:
        raise ModelError(
            f"The commit of the model cannot be recorded in {path}: {error.strerror or error}.",
            "Make that folder writable, or name another file with SFVQA_REVISIONS.",
        ) from error


WEIGHTS_INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
PROCESSOR_FILES = ("processor_config.json", "video_preprocessor_config.json", "preprocessor_config.json")
"""Which say how a published model's frames become pixels."""
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class CheckpointLocation:
    """Where a checkpoint is; `spec` and `revision` (a commit) are None for an unregistered folder.

    A speech model has a revision only.
    """

    name: str
    folder: Path
    spec: ModelSpec | None = None
    revision: str | None = None


def locate(model: str | Path) -> CheckpointLocation:
    """Find a checkpoint by registered name or by folder, without any download.

    A registered name wins over a folder of the same name (write `./tiny` for the folder). Raises UnknownModelError
    with the nearest names, ModelNotDownloadedError with the command that downloads it.
    """
    found = find(model)
    if isinstance(found, ModelSpec):
        return locate_registered(found)
    return CheckpointLocation(name=str(model), folder=found)


def locate_any(model: str) -> CheckpointLocation:
    """Find a checkpoint or a speech model by name or folder. Errors as `locate`."""
    try:
        return locate_speech(model)
    except (UnknownModelError, CheckpointError):
        return locate(model)


def find(model: str | Path) -> ModelSpec | Path:
    """Resolve a name or path to a registered model, downloaded or not, or to an existing folder. Errors as `locate`."""
    text = str(model)
    if not _is_path(model):
        try:
            return find_model(text)
        except UnknownModelError:
            if not Path(text).is_dir():
                raise
    folder = Path(text).expanduser()
    if folder.is_dir():
        _refuse_other_weights(folder)
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file, not a checkpoint folder.", "Name the folder it is in.")
    raise UnknownModelError(f"There is no folder {folder}.", "Name a checkpoint folder or one of `sfvqa models list`.")


def _is_path(model: str | Path) -> bool:
    """Whether it can be no name."""
    return isinstance(model, Path) or model.startswith((".", "~", "/", "\\")) or Path(model).is_absolute()


def _refuse_other_weights(folder: Path) -> None:
    """Raise CheckpointError for a folder whose weights cannot be loaded: those of an adapter, or pickles."""
    with contextlib.suppress(OSError):  # whoever reads it says why it cannot be read
        names = sorted(path.name for path in folder.iterdir())
        if WEIGHTS in names or WEIGHTS_INDEX in names:
            return
        if not missing_speech_files(folder):
            raise CheckpointError(
                f"{folder} holds a speech model, which answers no question.", "Give it to --speech-model instead."
            )
        if any(name.startswith(("adapter_config.", "adapter_model.")) for name in names):
            raise CheckpointError(f"{folder} holds an adapter (LoRA), not a model.", how_to_use(folder))
        if pickles := [name for name in names if any(fnmatchcase(name, pattern) for pattern in _PICKLES)]:
            raise CheckpointError(
                f"{folder} has its weights only as pickles ({pickles[0]}), which can run code when opened.",
                "Name a folder with safetensors, or ask its author to publish them.",
            )


def find_for_random_weights(model: str | Path) -> ModelSpec:
    """Resolve a name to a registered model; UsageError for a folder, which has weights. Errors as `find`."""
    found = find(model)
    if not isinstance(found, ModelSpec):
        raise UsageError(
            f"{model} is a checkpoint folder, which has weights.", "Use --random-weights with a registered model."
        )
    return found


def locate_registered(spec: PublishedModel) -> CheckpointLocation:
    """Find a registered model in the package or the Hugging Face cache; ModelNotDownloadedError if it is not there."""
    if isinstance(spec, ModelSpec) and spec.folder is not None:
        folder = Path(str(resources.files("sfvqa").joinpath(*spec.folder.split("/"))))
        if not folder.is_dir():
            raise CheckpointError(f"The bundled model {spec.name} is missing from {folder}.", "Reinstall sfvqa.")
        return CheckpointLocation(spec.name, folder, spec, spec.revision)
    if not spec.has_weights:
        raise ModelNotDownloadedError(
            f"The model {spec.name} has no trained weights.", "It runs only with --random-weights."
        )
    cached = cached_snapshot(spec)
    if cached is None:
        raise ModelNotDownloadedError(
            f"The model {spec.name} is not on this machine.",
            f"Download it with `sfvqa models pull {spec.name}` ({readable_size(spec.size_bytes)}, "
            f"licence {spec.license}).",
        )
    if missing := missing_of(spec, cached):
        raise ModelNotDownloadedError(
            f"The model {spec.name} is only partly downloaded: {cached} lacks {', '.join(missing[:5])}.",
            f"Fetch what is missing with `sfvqa models pull {spec.name}`.",
        )
    return CheckpointLocation(spec.name, cached, spec if isinstance(spec, ModelSpec) else None, revision=cached.name)


def is_downloaded(spec: PublishedModel) -> bool:
    """Whether every file of a registered model is on this machine."""
    cached = cached_snapshot(spec) if spec.repo_id is not None else None
    return spec.is_bundled or (cached is not None and not missing_of(spec, cached))


def cached_snapshot(spec: PublishedModel) -> Path | None:
    """The folder of a registered model in the Hugging Face cache, complete or not; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    assert spec.repo_id is not None
    revision = fixed_commit(spec) or spec.revision
    try:
        return Path(snapshot_download(spec.repo_id, revision=revision, local_files_only=True))
    except IncompleteSnapshotError as error:  # lacks something of the repository, though perhaps nothing we need
        return Path(error.snapshot_path)
    except LocalEntryNotFoundError:
        return None


def expected_model() -> ModelSpec:
    """The model that is run where none is named, if it fits the memory: the first that is downloaded, else tiny."""
    here = [spec for spec in load_registry() if is_downloaded(spec)]
    return min(here, key=lambda spec: spec.is_bundled)


def missing_files(folder: Path) -> list[str]:
    """Names of required files that a checkpoint folder lacks; contents are not read."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += [name for name in weight_files(folder) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        missing.append(TOKENIZER_FILES[0])
    return missing


SPEECH_WEIGHTS = "model.bin"
"""CTranslate2's own form, numbers alone: unlike a pickle of that name it cannot run code."""
_SPEECH_FILES = ("config.json", SPEECH_WEIGHTS, "tokenizer.json")
_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")


def missing_speech_files(folder: Path) -> list[str]:
    """The same for the folder of a Whisper model in CTranslate2's form."""
    missing = [name for name in _SPEECH_FILES if not (folder / name).is_file()]
    has_vocabulary = any((folder / name).is_file() for name in _VOCABULARIES)
    return missing if has_vocabulary else [*missing, _VOCABULARIES[0]]


def missing_of(spec: PublishedModel, folder: Path) -> list[str]:
    """The same for the folder of a model of any kind."""
    return missing_speech_files(folder) if isinstance(spec, SpeechSpec) else missing_files(folder)


def locate_speech(model: str | Path | None) -> CheckpointLocation:
    """Find a speech model by name or folder, without any download; None is the first in models.toml that is here.

    Errors as `locate`.
    """
    if model is None:
        here = (spec for spec in load_registry().speech if is_downloaded(spec))
        return locate_registered(next(here, None) or load_registry().find_speech(SUGGESTED_SPEECH_MODEL))
    text = str(model)
    if not _is_path(model):
        try:
            return locate_registered(load_registry().find_speech(text))
        except UnknownModelError:
            if not Path(text).is_dir():
                raise
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise UnknownModelError(f"There is no folder {folder}.", "Name a speech model of `sfvqa models list`.")
    if missing := missing_speech_files(folder):
        raise CheckpointError(
            f"{folder} is no Whisper model in CTranslate2's form: it lacks {', '.join(missing)}.",
            "Name another, or convert it with ct2-transformers-converter --copy_files tokenizer.json.",
        )
    return CheckpointLocation(text, folder)


def identify_speech(location: CheckpointLocation) -> str:
    """An identifier of a speech model's weights: `NAME@COMMIT`, or a hash of its files as they are now.

    Raises CheckpointError for files that cannot be read.
    """
    from sfvqa.video.readers.local_file import hash_files

    if location.revision is not None:
        return f"{location.name}@{location.revision}"
    try:
        return f"folder:{hash_files([location.folder / name for name in _SPEECH_FILES])}"
    except OSError as error:
        raise _unreadable(location, error) from error


def weight_files(folder: Path) -> list[str]:
    """Names of the tensor files that a folder should have, by its index if there is one."""
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return [WEIGHTS]
    try:
        fields = json.loads(index.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        fields = None
    weight_map = fields.get("weight_map") if isinstance(fields, dict) else None
    named = weight_map.values() if isinstance(weight_map, dict) else ()
    # Half a download may hold half an index: then the single file, which is not there, stands for what is missing.
    return sorted(set(named)) if named and all(isinstance(name, str) for name in named) else [WEIGHTS]


def revision_of(location: CheckpointLocation) -> str | None:
    """The commit, or a hash of the bundled weights, which change with the package; None for a folder."""
    if location.revision is not None or location.spec is None or not location.spec.is_bundled:
        return location.revision
    return hashlib.sha256((location.folder / WEIGHTS).read_bytes()).hexdigest()[:12]


def identify_checkpoint(location: CheckpointLocation, *, random_weights: bool) -> str:
    """Return an identifier of a model's weights, config and pixels, as `locate` found it or with random weights.

    `REPOSITORY@COMMIT` for one that was pulled; for any other a hash of its files as they are now; `random:…` with a
    hash of the architecture. Raises CheckpointError for files that cannot be read.
    """
    from sfvqa.video.readers.local_file import hash_files  # with it comes numpy, which completion must not wait for

    spec = location.spec
    if random_weights:
        assert spec is not None  # find_for_random_weights refuses folders
        architecture = json.dumps(asdict(spec.architecture), sort_keys=True)
        return f"random:{spec.name}:{hashlib.sha256(architecture.encode()).hexdigest()[:16]}"
    if spec is not None and spec.repo_id is not None and is_commit(location.revision):
        return f"{spec.repo_id}@{location.revision}"
    try:
        weights = [location.folder / name for name in weight_files(location.folder)]
        pixels = [path for name in PROCESSOR_FILES if (path := location.folder / name).is_file()]
        return f"{spec.name if spec else 'folder'}:{hash_files([location.folder / 'config.json', *pixels, *weights])}"
    except OSError as error:
        raise _unreadable(location, error) from error


def _unreadable(location: CheckpointLocation, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{error.filename or location.folder} cannot be read: {error.strerror or error}.",
        "Check the disk, or fetch the checkpoint again.",
    )


def identify_model(model: str | Path, *, random_weights: bool, adapter: str | None = None) -> str:
    """The same for a model by its name or folder, with an adapter merged into it. Errors as `locate`."""
    if adapter is not None:
        return f"{identify_model(model, random_weights=random_weights)}+{Adapter.of(adapter).identity}"
    if not random_weights:
        return identify_checkpoint(locate(model), random_weights=False)
    spec = find_for_random_weights(model)
    return identify_checkpoint(CheckpointLocation(spec.name, Path(), spec), random_weights=True)


def identify_seeing(settings: ModelSettings) -> str:
    """The same as far as it decides what is seen of a video: an adapter of the decoder alone changes nothing of that.

    Errors as `locate`.
    """
    adapter = settings.adapter
    if adapter is not None and not Adapter.of(adapter).changes_what_is_seen:
        adapter = None
    return identify_model(settings.name, random_weights=settings.random_weights, adapter=adapter)
