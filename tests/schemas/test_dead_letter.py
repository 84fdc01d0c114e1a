"""Dead letters keep the record and fit the topic."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.schemas.dead_letter import ERROR_BYTES_MAX, DeadLetter, DeadLetterError, dead_letter
from driftline.schemas.topics import DEAD_LETTERS
from driftline.streams.task import MemoryRecord

HEADERS = (("traceparent", b"00-1"), ("driftline.stage", b"ingest"))


def record(value: bytes | None, key: bytes | None = b"k", headers: tuple[tuple[str, bytes], ...] = HEADERS) -> MemoryRecord:
    return MemoryRecord("fraud.predictions", 3, 42, key, value, 1_763_726_400_000, headers)


def letter_of(
    source: MemoryRecord, *, limit: int = 1_000_000, error: str = "e", payload: bool = True
) -> tuple[bytes | None, bytes | None, DeadLetter, int]:
    key, value, headers = dead_letter(source, stage="ingest", reason="not_json", error=error, limit_bytes=limit, payload=payload)
    size = len(key or b"") + len(value or b"") + sum(len(n) + len(v) for n, v in headers)
    return key, value, DeadLetter.from_headers(headers), size


def test_record_is_kept_byte_for_byte_with_its_headers_first() -> None:
    source = record(b"\xff\x00 not json")
    key, value, headers = dead_letter(source, stage="join", reason="not_json", error="$: not JSON", limit_bytes=1 << 20)
    assert (key, value) == (b"k", b"\xff\x00 not json")
    assert headers[:2] == HEADERS
    letter = DeadLetter.from_headers(headers)
    assert letter == DeadLetter(
        topic="fraud.predictions",
        partition=3,
        offset=42,
        timestamp_ms=1_763_726_400_000,
        stage="join",
        reason="not_json",
        error="$: not JSON",
        sha256=hashlib.sha256(b"\xff\x00 not json").hexdigest(),
        truncated=False,
    )


def test_tombstone_stays_a_tombstone() -> None:
    key, value, letter, _ = letter_of(record(None))
    assert (key, value, letter.truncated) == (b"k", None, False)
    assert letter.sha256 == hashlib.sha256(b"").hexdigest()


def test_large_value_is_cut_and_says_so_with_the_digest_of_the_whole() -> None:
    whole = b"x" * 5_000_000
    _, value, letter, size = letter_of(record(whole), limit=DEAD_LETTERS.max_message_bytes - 500)
    assert value is not None
    assert whole.startswith(value)
    assert len(value) > 1_000_000
    assert letter.truncated
    assert letter.sha256 == hashlib.sha256(whole).hexdigest()
    assert size <= DEAD_LETTERS.max_message_bytes - 500


def test_large_headers_are_left_out_before_the_key() -> None:
    source = record(b"v" * 100, headers=(("big", b"h" * 100_000),))
    key, value, letter, size = letter_of(source, limit=2_000)
    assert key == b"k"
    assert value == b"v" * 100
    assert letter.truncated
    assert size <= 2_000


def test_record_of_a_sensitive_model_leaves_nothing_of_its_content() -> None:
    key, value, letter, _ = letter_of(record(b'{"card": "4111"}'), error='got "4111"', payload=False)
    assert (key, value, letter.error, letter.truncated) == (None, None, "", True)
    assert letter.offset == 42


def test_long_error_is_cut_between_characters() -> None:
    _, _, letter, _ = letter_of(record(b"x"), error="é" * 5_000)
    assert letter.error.endswith("...")
    assert len(letter.error.encode()) <= ERROR_BYTES_MAX


def test_unpaired_surrogate_in_an_error_is_replaced() -> None:
    _, _, letter, _ = letter_of(record(b"x"), error="got \ud800")
    assert letter.error == "got ?"


def test_record_without_a_broker_time_says_minus_one() -> None:
    class Timeless(MemoryRecord):
        def timestamp(self) -> tuple[int, int]:
            return (0, 0)

    source = Timeless("t", 0, 0, None, b"", 0)
    _, _, headers = dead_letter(source, stage="ingest", reason="r", error="e", limit_bytes=10_000)
    assert DeadLetter.from_headers(headers).timestamp_ms == -1


@settings(deadline=None)
@given(st.binary(max_size=3_000), st.none() | st.binary(max_size=600), st.integers(1_000, 4_000), st.text(max_size=200))
def test_dead_letter_always_fits_and_reads_back(value: bytes, key: bytes | None, limit: int, error: str) -> None:
    kept, cut, headers = dead_letter(record(value, key), stage="s", reason="r", error=error, limit_bytes=limit)
    assert sum(len(part or b"") for part in (kept, cut)) + sum(len(name) + len(content) for name, content in headers) <= limit
    assert cut is not None
    assert value.startswith(cut)
    complete = cut == value and kept == key and headers[:2] == HEADERS
    assert DeadLetter.from_headers(headers).truncated is not complete


NAMES = st.sampled_from(["driftline.stage", "driftline.source.offset", "driftline.sha256", "x"])


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=20))))
def test_headers_that_are_not_ours_are_refused(headers: list[tuple[str, bytes | None]]) -> None:
    with pytest.raises(DeadLetterError):
        DeadLetter.from_headers(headers)
