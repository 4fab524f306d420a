from __future__ import annotations

import hashlib
import os
import random
import threading
from pathlib import Path

import pytest

from infra.storage import checksums
from infra.storage.checksums import PieceHasher

_MD5 = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("etag", "plain", "parts"),
    [
        (_MD5, _MD5, None),
        (f"{_MD5}-3", None, 3),
        (f"{_MD5}-10000", None, 10_000),
        (f"{_MD5}-0", None, None),
        (f"{_MD5}-123456", None, None),
        (_MD5.upper(), None, None),
        ("", None, None),
        ("a1b2", None, None),
        (f"{_MD5}-", None, None),
    ],
)
def test_an_etag_says_what_it_is_made_of(etag: str, plain: str | None, parts: int | None) -> None:
    assert checksums.plain_md5(etag) == plain
    assert checksums.part_count(etag) == parts
    assert checksums.differs(etag, "another") is bool(plain or parts)
    assert not checksums.differs(etag, etag)


def test_the_etag_of_parts_is_amazons() -> None:
    # Of three parts of 5 MiB, 5 MiB and 7 bytes, all "x".
    md5s = [hashlib.md5(b"x" * size).hexdigest() for size in (5 << 20, 5 << 20, 7)]

    assert checksums.of_parts(md5s) == "4685ba9c832ba4a3b860398f432dc220-3"


@pytest.mark.parametrize(
    ("answer", "opaque"),
    [
        ({}, False),
        ({"ServerSideEncryption": "AES256"}, False),
        ({"ServerSideEncryption": "aws:kms"}, True),
        ({"ServerSideEncryption": "aws:kms:dsse"}, True),
        ({"SSECustomerAlgorithm": "AES256"}, True),
    ],
)
def test_encryption_with_other_keys_makes_an_etag_opaque(
    answer: dict[str, str], *, opaque: bool
) -> None:
    assert checksums.is_opaque(answer) is opaque


@pytest.mark.parametrize("size", [1, 9_999, 10_000, 30_000, 90_000, 100_003])
@pytest.mark.parametrize("piece", [10_000, 25_000, 1_000_000])
@pytest.mark.parametrize("threads", [1, 4])
def test_ranges_in_any_order_are_hashed_in_order(
    tmp_path: Path, size: int, piece: int, threads: int
) -> None:
    content, step = random.Random(size).randbytes(size), 10_000
    numbers = list(range(-(-size // step)))
    random.Random(piece).shuffle(numbers)
    (tmp_path / "file").write_bytes(b"\0" * size)
    hashing = PieceHasher(tmp_path / "file", size, piece, step)

    def fill(mine: list[int]) -> None:
        with (tmp_path / "file").open("r+b", buffering=0) as file:
            for number in mine:
                block = content[number * step : (number + 1) * step]
                os.pwrite(file.fileno(), block, number * step)
                hashing.filled(number)

    workers = [
        threading.Thread(target=fill, args=(numbers[first::threads],)) for first in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    expected = [
        hashlib.md5(content[start : start + piece]).hexdigest() for start in range(0, size, piece)
    ]
    assert hashing.md5s() == expected
    assert checksums.md5s_of(tmp_path / "file", piece) == expected


def test_an_empty_file_has_one_md5(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert checksums.md5s_of(tmp_path / "file", 10) == [hashlib.md5(b"").hexdigest()]
