"""A pull brings the files of a checkpoint and no others, goes on after an interruption, and lets no wrong byte in."""

import itertools
from pathlib import Path

import pytest

from sfvqa.errors import DownloadError, ModelNotDownloadedError
from sfvqa.inference.hub import disk
from sfvqa.inference.hub.progress import Stage
from sfvqa.inference.hub.pull import adopt, plan_pull, pull
from sfvqa.inference.hub.records import fixed_commit, records_path
from sfvqa.inference.locate import is_downloaded, locate
from sfvqa.registry import ModelSpec
from tests.inference.hub.fake_hub import FakeHub
from tests.inference.hub.published import INDEX, SHARDS, UNWANTED, checkpoint_of_numbers, flip_a_bit
from tests.inference.steps import run

WANTED = {"config.json", "tokenizer.json", INDEX, *SHARDS}


def test_a_whole_pull_brings_what_is_wanted_and_records_the_commit(hub: FakeHub, spec: ModelSpec) -> None:
    plan = plan_pull(spec)
    files = checkpoint_of_numbers()
    assert plan.missing_bytes == plan.listing.total_bytes == sum(len(files[name]) for name in WANTED)
    assert (plan.previous_commit, plan.changes_commit) == (None, False)
    assert not list(Path(disk.cache_folder()).glob("*")), "a plan writes nothing"

    seen, pulled = run(pull(plan))
    location = pulled.location

    assert (pulled.downloaded_bytes, pulled.replaced) == (plan.missing_bytes, ())
    assert location == locate("small")
    assert location.revision == hub.head == fixed_commit(spec)
    assert {path.name: path.read_bytes() for path in location.folder.iterdir()} == {
        name: files[name] for name in WANTED
    }
    for stage in Stage:
        last = [step for step in seen if step.stage is stage][-1]
        assert last.done_bytes == last.total_bytes == plan.listing.total_bytes
    assert not list(location.folder.parents[1].rglob("*.incomplete"))


def test_files_that_could_run_code_are_never_asked_for(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    for name in UNWANTED:
        assert not [asked for asked in hub.requests if name in asked.path]


def test_the_hub_learns_what_asks_and_nothing_more(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No telemetry; and a token goes to the hub alone, not to the storage that it points to."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run(pull(plan_pull(spec)))
    for asked in hub.requests:
        program, library = asked.headers["user-agent"].split("; ")
        assert program.startswith("sfvqa/")
        assert library.startswith("hf_hub/")
        in_storage = "/storage/" in asked.path
        assert asked.headers.get("authorization") == (None if in_storage else "Bearer hf_secret")
    assert hub.of("/storage/")


def test_a_pull_that_is_ended_goes_on_where_it_was(hub: FakeHub, spec: ModelSpec) -> None:
    """As after Ctrl-C and the same command: no byte on the disk is asked for again (huggingface_hub alone would)."""
    size = len(checkpoint_of_numbers()[SHARDS[0]])
    hub.pause_seconds = 0.01  # else the whole file is on its way before anybody can say stop
    first = pull(plan_pull(spec))
    for step in first:
        if step.file == SHARDS[0] and step.stage is Stage.DOWNLOAD:
            break
    first.close()
    hub.pause_seconds = 0.0
    assert not is_downloaded(spec)
    with pytest.raises(ModelNotDownloadedError, match=r"only partly downloaded.*`sfvqa models pull small` fetches"):
        locate("small")
    (partial,) = disk.cache_folder().rglob("*.incomplete")
    there = partial.stat().st_size
    assert 0 < there < size

    plan = plan_pull(spec)
    assert plan.missing_bytes == plan.listing.total_bytes - there - sum(
        len(checkpoint_of_numbers()[name]) for name in ("config.json", "tokenizer.json", INDEX)
    )
    seen, _ = run(pull(plan))

    again = hub.of(f"/storage/{hub.head}/{SHARDS[0]}")[-1]
    assert (again.status, again.range_start, again.sent_bytes) == (206, there, size - there)
    assert next(step.done_bytes for step in seen if step.stage is Stage.DOWNLOAD) > there
    assert len(hub.of("config.json")) == 1


def test_a_broken_connection_is_taken_up_again(hub: FakeHub, spec: ModelSpec) -> None:
    size = len(checkpoint_of_numbers()[SHARDS[0]])
    hub.cuts[SHARDS[0]] = [300_000, 0, 70_000]
    _, pulled = run(pull(plan_pull(spec)))
    asked = hub.of(f"/storage/{hub.head}/{SHARDS[0]}")
    starts = [request.range_start for request in asked]
    assert 0 < starts[1] == starts[2] <= starts[3]
    piece = 1 << 18  # of which the begun one is lost each time
    assert size <= sum(request.sent_bytes for request in asked) < size + 3 * piece
    assert (pulled.location.folder / SHARDS[0]).read_bytes() == checkpoint_of_numbers()[SHARDS[0]]


def test_a_server_that_knows_no_ranges_sends_all_and_all_is_right(hub: FakeHub, spec: ModelSpec) -> None:
    hub.ignores_range = True
    hub.cuts[SHARDS[0]] = [300_000]
    _, pulled = run(pull(plan_pull(spec)))
    assert (pulled.location.folder / SHARDS[0]).read_bytes() == checkpoint_of_numbers()[SHARDS[0]]


def test_a_connection_that_breaks_every_time_is_given_up(hub: FakeHub, spec: ModelSpec) -> None:
    hub.cuts[SHARDS[1]] = [0] * 9
    with pytest.raises(
        DownloadError, match=r"The connection to 127\.0\.0\.1:\d+ broke off\..*The same command goes on"
    ):
        run(pull(plan_pull(spec)))
    assert len(hub.of(f"/storage/{hub.head}/{SHARDS[1]}")) == 3  # one, and one for each wait


@pytest.mark.parametrize("name", ["config.json", SHARDS[0]])
def test_wrong_bytes_are_refused_and_removed(hub: FakeHub, spec: ModelSpec, name: str) -> None:
    hub.wrong_bytes.add(name)
    with pytest.raises(DownloadError, match=f"{name} came with other bytes than the hub states: its (git-sha1|sha256)"):
        run(pull(plan_pull(spec)))
    assert not list(disk.cache_folder().rglob("*.incomplete"))
    assert not is_downloaded(spec)
    hub.wrong_bytes.clear()
    run(pull(plan_pull(spec)))
    assert is_downloaded(spec)


def test_a_damaged_file_in_the_cache_is_fetched_again_and_no_other(hub: FakeHub, spec: ModelSpec) -> None:
    _, pulled = run(pull(plan_pull(spec)))
    flip_a_bit(pulled.location.folder / SHARDS[1])
    hub.requests.clear()
    _, repaired = run(pull(plan_pull(spec)))
    assert (repaired.replaced, repaired.downloaded_bytes) == ((SHARDS[1],), len(checkpoint_of_numbers()[SHARDS[1]]))
    assert (pulled.location.folder / SHARDS[1]).read_bytes() == checkpoint_of_numbers()[SHARDS[1]]
    assert [asked.path.split("/")[-1] for asked in hub.of("/storage/")] == [SHARDS[1]]


def test_a_disk_too_small_is_found_out_before_the_first_byte(hub: FakeHub, spec: ModelSpec) -> None:
    hub.stated_sizes[SHARDS[0]] = 10**15
    with pytest.raises(DownloadError, match=r"1,000\.0 TB are still to be fetched.*cache has .* free\. Make room"):
        plan_pull(spec)
    assert not hub.of("resolve")
    assert not records_path().exists()


def test_a_disk_that_fills_up_says_so(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    plan = plan_pull(spec)
    monkeypatch.setattr("sfvqa.inference.hub.pull.transfer", full)
    with pytest.raises(DownloadError, match=r"The disk of .*cache is full\. .*HF_HOME.*goes on"):
        run(pull(plan))


def test_a_cache_that_cannot_be_written_says_so(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/cache/blobs/x")

    plan = plan_pull(spec)
    monkeypatch.setattr("sfvqa.inference.hub.pull.transfer", refused)
    with pytest.raises(
        DownloadError, match=r"/cache/blobs/x cannot be written: Permission denied\. Make it writable, .*HF_HOME"
    ):
        run(pull(plan))


def test_a_cache_that_is_a_file_says_so(spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(DownloadError, match=r"file/hub.* cannot be written: Not a directory\. .*HF_HOME"):
        run(pull(plan_pull(spec)))


def test_a_new_commit_changes_nothing_until_an_update(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    old = hub.head
    new = hub.publish(checkpoint_of_numbers(seed=1))
    assert plan_pull(spec).listing.commit == locate("small").revision == old

    plan = plan_pull(spec, update=True)
    assert (plan.previous_commit, plan.listing.commit, plan.changes_commit) == (old, new, True)
    small = sum(len(checkpoint_of_numbers()[name]) for name in ("config.json", "tokenizer.json", INDEX))
    assert plan.missing_bytes == plan.listing.total_bytes - small  # what both commits have is here
    steps = pull(plan)
    next(step for step in steps if step.stage is Stage.DOWNLOAD)
    steps.close()
    assert locate("small").revision == old, "half an update changes nothing either"
    run(pull(plan_pull(spec, update=True)))
    assert locate("small").revision == new == fixed_commit(spec)


def test_what_another_tool_fetched_is_used_and_kept(hub: FakeHub, spec: ModelSpec) -> None:
    """`hf download` knows the main branch only; a pull without a network takes what is here."""
    from huggingface_hub import snapshot_download

    with pytest.raises(ModelNotDownloadedError):
        adopt(spec)
    snapshot_download(hub.repo_id, allow_patterns=["*.json", "*.safetensors"])
    assert fixed_commit(spec) is None
    assert adopt(spec).revision == hub.head == fixed_commit(spec)


def test_whoever_shares_the_cache_finds_the_model_without_our_record(hub: FakeHub, spec: ModelSpec) -> None:
    """Another user of the machine, a cache copied to one without a network, another program."""
    from huggingface_hub import snapshot_download

    first = pull(plan_pull(spec))
    next(first)
    first.close()
    for update in (False, True):
        run(pull(plan_pull(spec, update=update)))
        record = records_path().read_text()
        records_path().unlink()
        assert locate("small").revision == hub.head
        assert Path(snapshot_download(hub.repo_id, local_files_only=True)) == locate("small").folder
        records_path().write_text(record)
        hub.publish(checkpoint_of_numbers(seed=1))


def test_two_pulls_of_one_model_do_not_write_over_each_other(spec: ModelSpec) -> None:
    first = pull(plan_pull(spec))
    next(first)
    with pytest.raises(DownloadError, match="Another process is pulling small"):
        run(pull(plan_pull(spec)))
    first.close()
    run(pull(plan_pull(spec)))


@pytest.mark.parametrize(
    ("lacking", "complaint"),
    [
        (SHARDS, "no weights as safetensors"),
        (("config.json",), "lacks config.json"),
        (("tokenizer.json",), "tokenizer"),
    ],
)
def test_a_repository_that_is_no_checkpoint_is_refused(
    hub: FakeHub, spec: ModelSpec, lacking: tuple[str, ...], complaint: str
) -> None:
    hub.publish({name: data for name, data in checkpoint_of_numbers().items() if name not in lacking})
    if lacking == SHARDS:
        hub.publish({name: data for name, data in hub.commits[hub.head].items() if not name.endswith("safetensors")})
    with pytest.raises(DownloadError, match=complaint):
        plan_pull(spec)


def test_a_file_that_is_broken_as_published_is_refused(hub: FakeHub, spec: ModelSpec) -> None:
    hub.publish(checkpoint_of_numbers() | {SHARDS[0]: b"half a file"})
    with pytest.raises(DownloadError, match=f"{SHARDS[0]} of {hub.repo_id} at .* is broken as published"):
        run(pull(plan_pull(spec)))


def test_progress_never_goes_back(spec: ModelSpec) -> None:
    seen, _ = run(pull(plan_pull(spec)))
    for stage in Stage:
        done = [step.done_bytes for step in seen if step.stage is stage]
        assert all(earlier <= later for earlier, later in itertools.pairwise(done))
