"""A file that cannot be read is the user's to mend: exit code 2, the file's name, no class of ours and no traceback."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from driftline.cli.main import cli

ROWS = 60_000
LONG = f"1,{'a' * 200}\n"  # 6,000 of them are more than the reader takes at once: the file is read when it fails


def _latin(path: Path) -> None:
    path.write_bytes(b"x,y\n" + LONG.encode() * 6_000 + b"1,caf\xe9\n")


def _ragged(path: Path) -> None:
    path.write_text("x,y\n" + LONG * 6_000 + "1,2,3\n")


def _cut(path: Path) -> None:
    line = b'{"topic": "p", "time_ms": 1, "value": {}}\n' if ".jsonl" in path.name else b"1,2\n"
    packed = gzip.compress(b"x,y\n" * (".csv" in path.name) + line * ROWS)
    path.write_bytes(packed[: len(packed) // 2])


def _not_packed(path: Path) -> None:
    path.write_text("x,y\n1,2\n")


def _damaged(path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"x": list(range(ROWS))}), str(path))
    content = bytearray(path.read_bytes())
    content[1_000:100_000] = bytes(99_000)
    path.write_bytes(content)


def _binary(path: Path) -> None:
    path.write_bytes(b"\x00\x1b]0;title\x07\n\x1b[2J,,\n\xff\xfe,\n")


BROKEN: dict[str, Callable[[Path], None]] = {
    "latin.csv": _latin,
    "ragged.csv": _ragged,
    "cut.csv.gz": _cut,
    "not-packed.csv.gz": _not_packed,
    "damaged.parquet": _damaged,
    "binary.csv": _binary,
    "cut.jsonl.gz": _cut,
    "not-packed.jsonl.gz": _not_packed,
}


def refused(result: Result, path: Path) -> None:
    assert result.exit_code == 2, result.stderr
    assert path.name in result.stderr
    assert "SourceFileError" not in result.stderr
    assert "--debug" not in result.stderr
    assert result.stderr.replace("\n", "").isprintable()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yml"
    path.write_text("predictions: p\nmodels: [m]\n")
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_replay_names_a_file_that_it_cannot_read(name: str, tmp_path: Path, config: Path) -> None:
    path = tmp_path / name
    BROKEN[name](path)
    refused(CliRunner().invoke(cli, ["replay", str(path), "-c", str(config), "-o", "json"]), path)


@pytest.mark.parametrize("name", [name for name in BROKEN if ".jsonl" not in name])
def test_publish_names_a_file_that_it_cannot_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    BROKEN[name](path)
    refused(CliRunner().invoke(cli, ["publish", str(path), "--topic", "p", "--model", "m", "--print"]), path)


@pytest.mark.parametrize("name", ["binary.csv", "cut.csv.gz", "damaged.parquet"])
def test_init_and_baseline_name_a_file_that_they_cannot_read(name: str, tmp_path: Path, config: Path) -> None:
    path = tmp_path / name
    BROKEN[name](path)
    refused(CliRunner().invoke(cli, ["init", "--from-file", str(path), "--sample", "1000000", "-o", "-"]), path)
    target = str(tmp_path / "b.json")
    refused(CliRunner().invoke(cli, ["baseline", "build", str(config), "--from-file", str(path), "-o", target]), path)


def test_a_file_with_too_few_rows_for_the_score_says_so(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("x,y\n1,0\n2,1\n")
    source = ["--topic", "p", "--model", "m", "--label", "y", "--labels-topic", "l", "--score-from", "logistic:y:100"]
    result = CliRunner().invoke(cli, ["publish", str(path), *source, "--print"])
    assert result.exit_code == 2
    assert result.stderr == "error: the score is trained on 100 rows; the file has only 2\n"


def test_a_label_that_is_no_column_is_named_by_the_score_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + "1,0\n2,1\n" * 20)
    result = CliRunner().invoke(cli, ["publish", str(path), "--topic", "p", "--model", "m", "--score-from", "logistic:z:20", "--print"])
    assert result.exit_code == 2
    assert 'no column "z"' in result.stderr


def test_messages_are_no_rows_and_init_and_publish_say_so(tmp_path: Path, config: Path) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text('{"topic": "p", "time_ms": 1, "value": {"amount": 1}}\n')
    for command in (["init", "--from-file", str(file), "-o", "-"], ["publish", str(file), "-c", str(config), "--print"]):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 2
        assert "expected rows in a CSV, .csv.gz or Parquet file; .jsonl is raw messages" in result.stderr
