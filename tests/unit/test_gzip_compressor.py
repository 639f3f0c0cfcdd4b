from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs.base import CodecError
from gateway.codecs.gzip_compressor import compress, decompress

LIMIT = 1 << 20
CONTENT = b"a frame of some length, a frame of some length " * 8


@given(st.binary(max_size=5000))
def test_every_frame_survives_the_way_through_gzip(data: bytes) -> None:
    assert decompress(compress(data), LIMIT) == data


@given(st.binary(max_size=2000), st.integers(0, 9))
def test_members_of_another_gzip_are_read_and_ours_are_read_by_it(data: bytes, level: int) -> None:
    assert decompress(gzip.compress(data, level), LIMIT) == data
    assert gzip.decompress(compress(data)) == data


def test_equal_frames_give_equal_bytes_without_a_time_stamp() -> None:
    member = compress(CONTENT)

    assert member == compress(CONTENT)
    assert member[:4] == b"\x1f\x8b\x08\x00"
    assert member[4:8] == b"\x00\x00\x00\x00"


def test_the_limit_itself_is_allowed_and_one_byte_more_is_not() -> None:
    member = compress(CONTENT)

    assert decompress(member, len(CONTENT)) == CONTENT
    with pytest.raises(CodecError, match="more than"):
        decompress(member, len(CONTENT) - 1)


def test_an_empty_frame_fits_a_limit_of_zero() -> None:
    assert decompress(compress(b""), 0) == b""
    with pytest.raises(CodecError, match="more than"):
        decompress(compress(b"a"), 0)


def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    bomb = compress(bytes(50_000_000))

    tracemalloc.start()
    with pytest.raises(CodecError, match="more than"):
        decompress(bomb, 100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1_000_000


@pytest.mark.parametrize("data", [b"", b"\x00", CONTENT, compress(CONTENT)], ids=["empty", "zero", "text", "long"])
def test_a_member_cut_off_anywhere_is_refused(data: bytes) -> None:
    member = compress(data)

    for length in range(len(member)):
        with pytest.raises(CodecError):
            decompress(member[:length], LIMIT)


@pytest.mark.parametrize(
    "tail", [b"\x00", b"\n", compress(b""), compress(CONTENT)], ids=["zero", "line", "empty member", "member"]
)
def test_anything_after_the_member_is_refused(tail: bytes) -> None:
    with pytest.raises(CodecError, match="after the end"):
        decompress(compress(CONTENT) + tail, LIMIT)


@pytest.mark.parametrize(
    "data",
    [CONTENT, zlib.compress(CONTENT), zlib.compress(CONTENT, wbits=-15), b"\x1f\x8b", b'{"reqIdentifier":1001}'],
    ids=["text", "zlib stream", "raw deflate", "only the magic", "json"],
)
def test_what_is_not_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decompress(data, LIMIT)


def test_a_wrong_checksum_or_size_is_refused() -> None:
    member = compress(CONTENT)

    for index in range(len(member) - 8, len(member)):
        changed = member[:index] + bytes((member[index] ^ 1,)) + member[index + 1 :]
        with pytest.raises(CodecError):
            decompress(changed, LIMIT)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_codec_error(data: bytes) -> None:
    for frame in (data, compress(CONTENT)[:10] + data):
        try:
            decompress(frame, LIMIT)
        except CodecError:
            continue


def test_one_changed_byte_raises_nothing_but_codec_error() -> None:
    member = compress(CONTENT)

    for index in range(len(member)):
        for bit in range(8):
            changed = member[:index] + bytes((member[index] ^ (1 << bit),)) + member[index + 1 :]
            try:
                decompress(changed, LIMIT)
            except CodecError:
                continue
