"""CN-CLIP's vocabulary as a ``tokenizer.json`` whose ids equal those of ``cn_clip.clip.tokenize``.

tokenizers' own BertNormalizer is close, not equal: it drops private-use characters, knows other Unicode versions' marks
and punctuation, and has no final sigma (thousands of code points tokenize differently). So the character classes are
spelled out from Python's own ``unicodedata``, which is what cn_clip asks too: of all 1,112,064 code points one differs,
a rare mark after Σ.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from models.convert.architecture import CONTEXT_LENGTH

# The blocks that BERT's basic tokenizer takes for Chinese (google-research/bert, tokenization.py).
_CHINESE = (
    "[\\x{3400}-\\x{4dbf}\\x{4e00}-\\x{9fff}\\x{f900}-\\x{faff}"
    "\\x{20000}-\\x{2a6df}\\x{2a700}-\\x{2ceaf}\\x{2f800}-\\x{2fa1f}]"
)
_CASED = r"[\p{Cased}&&\P{Case_Ignorable}]"
# Where str.lower makes a final sigma of Σ: the Unicode standard, table 3-17.
_FINAL_SIGMA = rf"{_CASED}\p{{Case_Ignorable}}*\KΣ(?!\p{{Case_Ignorable}}*{_CASED})"


def cn_clip_tokenizer(pieces: Sequence[str], context_length: int = CONTEXT_LENGTH) -> Tokenizer:
    """Return a tokenizer whose ids are those of ``cn_clip.clip.tokenize``.

    They are [CLS] pieces [SEP], cut to ``context_length`` with [SEP] kept, padded with 0. ``pieces``: the vocabulary
    (``models.convert.vocabulary``).
    """
    vocab = {piece: index for index, piece in enumerate(pieces) if piece}
    tokenizer = Tokenizer(WordPiece(vocab=vocab, unk_token="[UNK]", max_input_chars_per_word=200))  # noqa: S106
    # [CLS] and its like are not added tokens: typed by a person, they are brackets and letters, as in cn_clip.
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(_class_of(_is_dropped)), ""),
            normalizers.Replace(Regex(_class_of(_is_space)), " "),
            normalizers.Replace(Regex(_FINAL_SIGMA), "ς"),
            normalizers.Lowercase(),
            normalizers.NFD(),
            normalizers.Replace(Regex(_class_of(_is_mark)), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[ \\x{2028}\\x{2029}]+"), "removed"),
            pre_tokenizers.Split(Regex(_CHINESE), "isolated"),
            pre_tokenizers.Split(Regex(_class_of(_is_punctuation)), "isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])]
    )
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(length=context_length, pad_id=vocab["[PAD]"], pad_token="[PAD]")  # noqa: S106
    return tokenizer


def _is_dropped(char: str) -> bool:
    return char == "\ufffd" or (char not in "\t\n\r" and unicodedata.category(char) in ("Cc", "Cf"))


def _is_space(char: str) -> bool:
    return char in "\t\n\r" or unicodedata.category(char) == "Zs"


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) == "Mn"


def _is_punctuation(char: str) -> bool:
    return (char.isascii() and char.isprintable() and not char.isalnum() and char != " ") or unicodedata.category(
        char
    ).startswith("P")


@cache
def _class_of(predicate: Callable[[str], bool]) -> str:
    """Return the regular expression of one character that satisfies ``predicate``. Takes 0.1 s the first time."""
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in _ranges(predicate)) + "]"


def _ranges(predicate: Callable[[str], bool]) -> Iterator[tuple[int, int]]:
    first: int | None = None
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and not 0xD800 <= code < 0xE000 and predicate(chr(code))
        if inside and first is None:
            first = code
        elif not inside and first is not None:
            yield first, code - 1
            first = None
