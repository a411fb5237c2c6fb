from hashlib import sha256

import pytest
from db_builders import a_case, a_finding, a_slice

from db.records import bucket_id


def test_a_bucket_is_named_by_the_first_twelve_digits_of_its_signatures_digest() -> None:
    assert bucket_id("swapgs/gs_base") == sha256(b"swapgs/gs_base").hexdigest()[:12]


def test_a_case_is_named_by_the_digest_of_its_bytes_and_nothing_else() -> None:
    assert a_case(b"\x01", target="linux4").digest == a_case(b"\x01", target="linux6").digest == sha256(b"\x01").hexdigest()


def test_a_slice_describes_every_signature_it_hit() -> None:
    with pytest.raises(ValueError, match="slice 3: signature 'undescribed' has no finding"):
        a_slice(3, [a_finding("described")], hits={"described": 1, "undescribed": 1})


def test_a_slice_counts_every_signature_it_describes() -> None:
    with pytest.raises(ValueError, match="slice 3: signature 'uncounted' has no hit"):
        a_slice(3, [a_finding("uncounted")], hits={})


def test_a_signature_that_is_counted_was_hit() -> None:
    with pytest.raises(ValueError, match="slice 3: signature 'x' has 0 hits"):
        a_slice(3, [a_finding("x")], hits={"x": 0})
