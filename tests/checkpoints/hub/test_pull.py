"""A pull brings the files of a checkpoint and no others, keeps what is complete, and lets no wrong byte in."""

import pytest

from sfvqa.checkpoints.download import Stage, plan_pull, pull, repository_folder
from sfvqa.checkpoints.find import fixed_commit, is_downloaded, locate, records_path
from sfvqa.errors import DownloadError, ModelNotDownloadedError
from sfvqa.registry import ModelSpec
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import INDEX, SHARDS, UNWANTED, checkpoint_of_numbers, flip_a_bit
from tests.inference.steps import run

WANTED = {"config.json", "tokenizer.json", INDEX, *SHARDS}


def test_a_whole_pull_brings_what_is_wanted_and_records_the_commit(hub: FakeHub, spec: ModelSpec) -> None:
    plan = plan_pull(spec)
    files = checkpoint_of_numbers()
    assert plan.missing_bytes == plan.total_bytes == sum(len(files[name]) for name in WANTED)
    assert plan.previous_commit is None
    assert not list(repository_folder(spec).rglob("*")), "a plan writes nothing"

    seen, damaged = run(pull(plan))

    location = locate("small")
    assert damaged == ()
    assert location.revision == hub.head == fixed_commit(spec)
    assert {path.name: path.read_bytes() for path in location.folder.iterdir()} == {
        name: files[name] for name in WANTED
    }
    for stage in Stage:
        done = [step.done_bytes for step in seen if step.stage is stage]
        assert done == sorted(done)
        assert done[-1] == plan.total_bytes
    for name in UNWANTED:
        assert not [asked for asked in hub.requests if name in asked.path], "it could run code"


def test_the_hub_learns_what_asks_and_nothing_more(
    hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No telemetry; and a token goes to the hub alone, not to the storage that it points to."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run(pull(plan_pull(spec)))
    for asked in hub.requests:
        programs = asked.headers["user-agent"].split("; ")
        assert {program.split("/")[0] for program in programs} == {"sfvqa", "hf_hub", "python"}
        in_storage = "/storage/" in asked.path
        assert asked.headers.get("authorization") == (None if in_storage else "Bearer hf_secret")
    assert hub.of("/storage/")


def test_a_pull_that_is_ended_keeps_the_files_that_are_complete(hub: FakeHub, spec: ModelSpec) -> None:
    """As after Ctrl-C and the same command: huggingface_hub lets go of a file that is not complete."""
    hub.publish(checkpoint_of_numbers(values=5_000_000))
    hub.pause_seconds = 0.002
    first = pull(plan_pull(spec))
    for step in first:
        if step.stage is Stage.DOWNLOAD and step.done_bytes > 25_000_000:
            break
    first.close()
    hub.pause_seconds = 0.0
    assert not list(repository_folder(spec).rglob("*.incomplete"))
    with pytest.raises(ModelNotDownloadedError, match=r"only partly downloaded.*`sfvqa models pull small`"):
        locate("small")
    plan = plan_pull(spec)
    assert plan.missing_bytes == plan.file_bytes[SHARDS[1]]
    hub.requests.clear()
    run(pull(plan))
    assert [asked.path.split("/")[-1] for asked in hub.of("/storage/")] == [SHARDS[1]]


def test_a_broken_connection_is_taken_up_again(hub: FakeHub, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.cuts[SHARDS[0]] = [300_000, 0, 70_000]
    run(pull(plan_pull(spec)))
    asked = hub.of(f"/storage/{hub.head}/{SHARDS[0]}")
    assert len(asked) == 4
    assert 0 < asked[1].range_start == asked[2].range_start
    assert (locate("small").folder / SHARDS[0]).read_bytes() == checkpoint_of_numbers()[SHARDS[0]]


def test_a_connection_that_breaks_every_time_is_given_up(hub: FakeHub, spec: ModelSpec) -> None:
    hub.cuts[SHARDS[1]] = [0] * 99
    with pytest.raises(DownloadError, match=r"The connection to 127\.0\.0\.1:\d+ failed: .*Rerun the command"):
        run(pull(plan_pull(spec)))
    assert len(hub.of(f"/storage/{hub.head}/{SHARDS[1]}")) < 10


@pytest.mark.parametrize("name", ["config.json", SHARDS[0]])
def test_wrong_bytes_are_refused_and_removed(hub: FakeHub, spec: ModelSpec, name: str) -> None:
    hub.wrong_bytes.add(name)
    with pytest.raises(DownloadError, match=f"{name} .* does not match what the hub states: its (git-sha1|sha256)"):
        run(pull(plan_pull(spec)))
    assert not is_downloaded(spec)
    hub.wrong_bytes.clear()
    run(pull(plan_pull(spec)))
    assert is_downloaded(spec)


def test_a_damaged_file_in_the_cache_is_fetched_again_and_no_other(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    damaged = locate("small").folder / SHARDS[1]
    flip_a_bit(damaged)
    hub.requests.clear()
    _, replaced = run(pull(plan_pull(spec)))
    assert replaced == (SHARDS[1],)
    assert damaged.read_bytes() == checkpoint_of_numbers()[SHARDS[1]]
    assert [asked.path.split("/")[-1] for asked in hub.of("/storage/")] == [SHARDS[1]]


def test_a_new_commit_changes_nothing_until_an_update(hub: FakeHub, spec: ModelSpec) -> None:
    run(pull(plan_pull(spec)))
    old = hub.head
    new = hub.publish(checkpoint_of_numbers(seed=1))
    assert plan_pull(spec).commit == locate("small").revision == old

    plan = plan_pull(spec, update=True)
    assert (plan.previous_commit, plan.commit) == (old, new)
    assert plan.missing_bytes == sum(plan.file_bytes[shard] for shard in SHARDS), "what both commits have is here"
    hub.statuses[f"/storage/{new}/{SHARDS[1]}"] = (403, {})
    with pytest.raises(DownloadError):
        run(pull(plan))
    assert locate("small").revision == old, "half an update changes nothing either"
    hub.statuses.clear()
    run(pull(plan_pull(spec, update=True)))
    assert locate("small").revision == new == fixed_commit(spec)


def test_whoever_shares_the_cache_finds_the_model_without_our_record(hub: FakeHub, spec: ModelSpec) -> None:
    """Another user of the machine, a cache copied to one without a network, another program."""
    from huggingface_hub import snapshot_download

    for update in (False, True):
        plan = plan_pull(spec, update=update)
        if plan.previous_commit is not None:
            assert (repository_folder(spec) / "refs" / "main").read_text() == plan.previous_commit, "only a plan"
        run(pull(plan))
        record = records_path().read_text()
        records_path().unlink()
        assert locate("small").revision == hub.head
        assert snapshot_download(hub.repo_id, local_files_only=True, allow_patterns="*.json")
        records_path().write_text(record)
        hub.publish(checkpoint_of_numbers(seed=1))


@pytest.mark.parametrize("lacking", [SHARDS, ("config.json",), ("tokenizer.json",)])
def test_a_repository_that_is_no_checkpoint_is_refused(hub: FakeHub, spec: ModelSpec, lacking: tuple[str, ...]) -> None:
    files = checkpoint_of_numbers()
    hub.publish({name: data for name, data in files.items() if name not in lacking})
    with pytest.raises(DownloadError, match="is not a checkpoint"):
        plan_pull(spec)
    assert not hub.of("/storage/")


def test_a_file_that_is_broken_as_published_is_refused(hub: FakeHub, spec: ModelSpec) -> None:
    hub.publish(checkpoint_of_numbers() | {SHARDS[0]: b"half a file"})
    with pytest.raises(DownloadError, match=f"{SHARDS[0]} of {hub.repo_id} .*cannot be read"):
        run(pull(plan_pull(spec)))
