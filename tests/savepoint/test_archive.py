"""A savepoint's file is taken whole and as it was written, or refused by name; nothing in it is believed before that."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.streams.errors import SavepointError
from driftline.streams.savepoint.archive import SUMS, ArchiveReader, ArchiveWriter, tar_header
from driftline.streams.savepoint.contents import MANIFEST_PART, Contents, SavedTask, SavepointReader, SavepointWriter, World
from driftline.streams.task import RestoredRing, RestoredState

STATE = RestoredState(
    {"task": b'{"v":1}', "m/features/scope/0": bytes(range(256)) * 3, "empty": b""},
    {"m/ring/0": RestoredRing("m/ring/0", 3, 4, 9, b"abcdefghijkl"), "short": RestoredRing("short", 2, 10, 3, b"123456")},
)


def archive(parts: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    writer = ArchiveWriter(sink)
    for name, part in parts.items():
        writer.add(name, part)
    writer.close()
    return sink.getvalue()


def savepoint(**change: Any) -> bytes:
    """A savepoint of one task, with fields of its manifest changed; a field of the task by `task_NAME`."""
    sink = io.BytesIO()
    inner = ArchiveWriter(sink)
    writer = SavepointWriter(inner)
    blobs, rings = writer.put(STATE)
    task = SavedTask("detect", "detect/0", [("p.observations", 0, 17)], "3-2-ab", 3, 2, "1-1-ab", "c0ffee", blobs, rings)
    task = msgspec.structs.replace(task, **{name.removeprefix("task_"): v for name, v in change.items() if name.startswith("task_")})
    world = World("default", "p", "g", "k", "cluster", {"p.observations": "id"}, {"p.observations": 1})
    fields: dict[str, Any] = {
        "format": "driftline savepoint", "version": 1, "created_at_ms": 1, "driftline": "0", "checkpoint_version": 1, "state_version": "1",
        "world": world, "live_since_ms": None, "ends": [("p.drift", 0, 5)], "tasks": [task],
    }  # fmt: skip
    writer.close(Contents(**fields | {name: v for name, v in change.items() if not name.startswith("task_")}))
    return sink.getvalue()


def read(data: bytes, folder: Path) -> SavepointReader:
    path = folder / "s.savepoint"
    path.write_bytes(data)
    with path.open("rb") as file:
        reader = SavepointReader(ArchiveReader(file))
        assert [reader.state(task) for task in reader.contents.tasks] == [STATE] * len(reader.contents.tasks)
    return reader


def test_state_comes_back_as_it_was_put(tmp_path: Path) -> None:
    contents = read(savepoint(), tmp_path).contents
    assert contents.tasks[0].offsets == [("p.observations", 0, 17)]
    assert contents.ends == [("p.drift", 0, 5)]


def test_the_tools_of_any_system_unpack_and_check_it(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(savepoint())
    with tarfile.open(tmp_path / "s.tar") as tar:
        # Debian's 3.11.2 is older than filters.
        options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(tmp_path, **options)
    for line in (tmp_path / SUMS).read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert msgspec.json.decode((tmp_path / MANIFEST_PART).read_bytes())["tasks"][0]["task"] == "detect/0"


def test_no_bit_of_it_can_be_flipped_unnoticed(tmp_path: Path) -> None:
    data = savepoint()
    path = tmp_path / "flipped"
    path.write_bytes(data)
    with path.open("r+b", buffering=0) as file:
        for at in range(len(data)):
            os.pwrite(file.fileno(), bytes([data[at] ^ 1 << at % 8]), at)
            with pytest.raises(SavepointError):
                ArchiveReader(file)
            os.pwrite(file.fileno(), data[at : at + 1], at)
        ArchiveReader(file)


@pytest.mark.parametrize("kept", [0, 1, 511, 512, 700, 2_048, -1, -512, -1_024, -1_025, -1_600])
def test_a_cut_file_is_refused(kept: int, tmp_path: Path) -> None:
    with pytest.raises(SavepointError, match=r"cut|not a savepoint"):
        read(savepoint()[:kept], tmp_path)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SavepointError, match="after its end"):
        read(savepoint() + b"\0", tmp_path)


@settings(max_examples=200)
@given(st.binary(max_size=3_000))
def test_any_other_file_is_no_savepoint(data: bytes) -> None:
    with os.fdopen(os.memfd_create("any"), "w+b") as file:
        file.write(data)
        file.flush()
        with pytest.raises(SavepointError, match="not a savepoint"):
            ArchiveReader(file)


def test_another_tar_and_a_device_are_no_savepoints(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    subprocess.run(["tar", "cf", "other.tar", "a"], cwd=tmp_path, check=True)
    for path in (tmp_path / "other.tar", Path("/dev/zero")):
        with path.open("rb") as file, pytest.raises(SavepointError, match="not a savepoint"):
            ArchiveReader(file)


def test_a_part_that_claims_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(SavepointError, match="expected at most"):
        read(tar_header("parts/0", 4 << 30), tmp_path)
    with pytest.raises(SavepointError, match="cut"):
        read(tar_header("parts/0", 500 << 20), tmp_path)
    negative = tar_header("a", 0)[:124] + b"-0000000001\0"
    with pytest.raises(SavepointError, match="not a savepoint"):
        read(negative.ljust(512, b"\0"), tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(savepoint())
    with path.open("r+b", buffering=0) as file:
        reader = SavepointReader(ArchiveReader(file))
        os.pwrite(file.fileno(), b"?", savepoint().index(b"abcdefghijkl"))
        with pytest.raises(SavepointError, match="changed while it was read"):
            reader.state(reader.contents.tasks[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "savepoint version 2: this release reads version 1\n  hint: upgrade"),
        ({"format": "something else"}, "not a savepoint"),
        ({"checkpoint_version": 9}, "checkpoints of version 9"),
        ({"state_version": "0"}, "with state 0"),
        ({"task_sequence": -1}, "impossible"),
        ({"task_offsets": []}, "impossible"),
        ({"task_offsets": [("p.observations", 0, -2)]}, "impossible"),
        ({"task_offsets": [("p.observations", 0, 1), ("p.observations", 0, 2)]}, "twice"),
        ({"task_offsets": [("p.observations", 0, 1 << 70)]}, "impossible"),
        ({"task_blobs": []}, "names other parts"),
        ({"task_epoch": "1"}, "damaged savepoint: its manifest"),
        ({"ends": [("p.drift", -1, 5)]}, "impossible"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused_though_its_sums_are_right(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SavepointError, match=message):
        read(savepoint(**change), tmp_path)


def test_a_task_or_part_that_stands_in_it_twice_is_refused(tmp_path: Path) -> None:
    task = msgspec.json.decode(_part(savepoint(), tmp_path, MANIFEST_PART), type=Contents).tasks[0]
    with pytest.raises(SavepointError, match="twice"):
        read(savepoint(tasks=[task, task]), tmp_path)
    other = msgspec.structs.replace(task, task="detect/1")
    with pytest.raises(SavepointError, match="names other parts"):
        read(savepoint(tasks=[task, other]), tmp_path)


def test_a_window_of_another_length_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    task = msgspec.json.decode(_part(savepoint(), tmp_path, MANIFEST_PART), type=Contents).tasks[0]
    longer = [msgspec.structs.replace(ring, head=ring.head + 1) for ring in task.rings]
    with pytest.raises(SavepointError, match='window "short"'):
        read(savepoint(task_rings=longer), tmp_path)


def test_a_manifest_that_is_missing_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavepointError, match=r'part "manifest.json" is missing'):
        read(archive({"parts/0": b"x"}), tmp_path)
    for data in (b"", b"[" * 100_000, b"\xff", b"null", b'{"format": "driftline savepoint", "version": 1}'):
        with pytest.raises(SavepointError, match="its manifest"):
            read(archive({MANIFEST_PART: data}), tmp_path)


def _part(data: bytes, folder: Path, name: str) -> bytes:
    (folder / "whole").write_bytes(data)
    with (folder / "whole").open("rb") as file:
        return ArchiveReader(file).read(name)
