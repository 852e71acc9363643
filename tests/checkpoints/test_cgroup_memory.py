"""A container's limit counts, not only the machine's memory: there everything seemed to fit, and was killed."""

from pathlib import Path

import pytest

from sfvqa.checkpoints import host
from sfvqa.checkpoints.host import free_in_groups, total_in_groups

GB = 10**9


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "ROOT", tmp_path)
    monkeypatch.setattr(host, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_tightest_group_of_version_2_decides(root: Path) -> None:
    write(root, membership="0::/user/job")
    write(root / "user" / "job", memory__max="max", memory__current=GB)
    write(root / "user", memory__max=8 * GB, memory__current=3 * GB, memory__stat=f"anon 5\ninactive_file {GB}")
    assert (free_in_groups(), total_in_groups()) == (6 * GB, 8 * GB)


def test_a_container_sees_its_own_group_as_the_root(root: Path) -> None:
    write(root, membership="0::/", memory__max=4 * GB, memory__current=5 * GB)
    assert free_in_groups() == 0


def test_version_1_has_a_folder_for_memory(root: Path) -> None:
    write(root, membership="5:cpu:/job\n4:memory:/job\n0::/")
    write(
        root / "memory" / "job",
        memory__limit_in_bytes=2 * GB,
        memory__usage_in_bytes=GB,
        memory__stat=f"inactive_file 7\ntotal_inactive_file {GB // 2}",
    )
    assert free_in_groups() == GB + GB // 2


def test_no_group_and_no_limit_say_nothing(root: Path) -> None:
    assert free_in_groups() is None
    write(root, membership="0::/", memory__max="max", memory__current=GB)
    assert free_in_groups() is None


def test_free_memory_is_the_smaller_of_the_two(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, membership="0::/", memory__max=4 * GB, memory__current=GB, meminfo="MemTotal: 64000000 kB")
    (root / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    monkeypatch.setattr(host, "MEMINFO", root / "meminfo")
    assert (host.free_host_bytes(), host.total_host_bytes()) == (3 * GB, 4 * GB)
    (root / "meminfo").write_text("MemTotal: 64000000 kB\nMemAvailable: 1000000 kB\n")
    assert host.free_host_bytes() == 1_024_000_000
