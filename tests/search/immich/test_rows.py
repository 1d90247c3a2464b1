"""Tokens as Immich cuts them. The rows themselves: test_reprocess_immich.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.immich.rows import search_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("营业执照", ["营业", "业执", "执照"]),
        ("发 票", ["发", "票"]),
        ("总计 ¥12.50元", ["总计", "¥12.50", "元"]),
        ("Hello, world", ["Hello,", "world"]),
        ("RE16发票A-102", ["RE16", "发票", "A-102"]),
        ("ひらがなカタカナ", ["ひら", "らが", "がな", "なカ", "カタ", "タカ", "カナ"]),
        ("한국어", ["한국", "국어"]),
        (
            "全\u3000角",
            ["全", "\u3000", "角"],
        ),  # an ideographic space is neither of Immich's separators nor one of its characters
        ("𠀀好", ["𠀀", "好"]),  # beyond the basic plane: no CJK to Immich, which looks at UTF-16 units
        (" \t\n\x00", []),
        ("", []),
    ],
)
def test_text_is_cut_as_immich_cuts_it(text: str, tokens: list[str]) -> None:
    assert search_tokens(text) == tokens


def _as_immich(text: str) -> list[str]:
    """Cut ``text`` by Immich's loop over UTF-16 code units (``tokenizeForSearch`` of its server)."""
    units = text.encode("utf-16-le", "surrogatepass")
    codes = [int.from_bytes(units[at : at + 2], "little") for at in range(0, len(units), 2)]
    ranges = ((0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0x3040, 0x309F), (0x30A0, 0x30FF), (0x3400, 0x4DBF))

    def cjk(code: int) -> bool:
        return any(first <= code <= last for first, last in ranges)

    def joined(part: list[int]) -> str:
        return b"".join(code.to_bytes(2, "little") for code in part).decode("utf-16-le", "surrogatepass")

    tokens, at = [], 0
    while at < len(codes):
        start = at
        if codes[at] <= 32:
            at += 1
        elif cjk(codes[at]):
            while at < len(codes) and cjk(codes[at]):
                at += 1
            single = at - start == 1
            tokens += (
                [joined(codes[start:at])] if single else [joined(codes[one : one + 2]) for one in range(start, at - 1)]
            )
        else:
            while at < len(codes) and codes[at] > 32 and not cjk(codes[at]):
                at += 1
            tokens.append(joined(codes[start:at]))
    return tokens


@given(
    st.text(st.sampled_from("发票營업かカ㐀䶿一鿿가힯Aa1-.,， \t\n\x00\x20\x21𠀀😀ー゠〿ㄱ"), max_size=40)
    | st.text(max_size=40)
)
def test_any_text_is_cut_as_by_immichs_own_loop(text: str) -> None:
    assert search_tokens(text) == _as_immich(text)
