"""Digests as hubs and records write them."""

from __future__ import annotations

import pytest

from models.digest import Digest


def test_a_digest_is_read_in_either_case() -> None:
    assert Digest.parse(f"sha256:{'Ab' * 32}") == Digest("sha256", "ab" * 32)
    assert Digest.parse(f"git-sha1:{'0F' * 20}") == Digest("git-sha1", "0f" * 20)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "md5:" + "a" * 32,
        *(f"sha256:{c * 64}" for c in "/.g\0 \ud800\u0661"),
        "sha256:" + "../" * 21 + "a",
    ],
)
def test_what_is_not_hexadecimal_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match="is no digest"):
        Digest.parse(text)
