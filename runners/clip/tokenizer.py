"""Tokenizer of CLIP texts: cleaning, language token, ``tokenizer.json``, padding."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from runners.clip.files import damaged, read_json
from runners.clip.languages import flores_token

_DEFAULT_CONTEXT = {"cn-clip": 52}
_OPEN_CLIP_CONTEXT = 77
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ClipTokenizer:
    """The tokenizer of one model. May be called from several threads at once."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        context_length: int,
        pad_id: int,
        pad_token: str,
        collapse: bool,
        canonicalize: bool,
        nllb: bool,
    ) -> None:
        """Take over ``tokenizer`` and set its padding and truncation.

        ``collapse``: runs of whitespace become one space. ``canonicalize``: ASCII punctuation is dropped and the rest
        lower-cased. ``nllb``: a text whose language is known begins with that language's FLORES-200 token.
        """
        tokenizer.enable_truncation(max_length=context_length)
        tokenizer.enable_padding(length=context_length, pad_id=pad_id, pad_token=pad_token)
        self._tokenizer = tokenizer
        self._collapse = collapse
        self._canonicalize = canonicalize
        self._nllb = nllb
        self.context_length = context_length

    def encode(self, texts: Sequence[tuple[str, str | None]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the token ids and the attention mask of (text, language) pairs, both (n, context) int64.

        The mask is 1 at tokens and 0 at padding.
        """
        # One by one: encode_batch would start a thread per core of its own for a few words.
        encodings = [self._tokenizer.encode(self.clean(text, language)) for text, language in texts]
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        return ids.reshape(-1, self.context_length), mask.reshape(-1, self.context_length)

    def clean(self, text: str, language: str | None) -> str:
        """Return ``text`` as it is tokenized."""
        text = text.encode("utf-8", "ignore").decode("utf-8")  # tokenizers refuses half a surrogate pair
        if self._collapse:
            text = " ".join(text.split())
        if self._canonicalize:
            text = " ".join(text.translate(_NO_PUNCTUATION).lower().split())
        if self._nllb and language is not None:
            text = flores_token(language) + text
        return text


def read_tokenizer(model_name: str, entry_family: str, files: Mapping[str, Path]) -> ClipTokenizer:
    """Read the tokenizer of a CLIP folder.

    ``config.json``: ``text_cfg.context_length`` (77 where missing, 52 for CN-CLIP),
    ``text_cfg.tokenizer_kwargs.clean``; ``tokenizer_config.json``: ``pad_token``. Raises ``ModelUnavailable`` where a
    file is damaged.
    """
    text_config = read_json(files["config.json"]).get("text_cfg") or {}
    pad_token = _token(read_json(files["textual/tokenizer_config.json"]).get("pad_token"))
    path = files["textual/tokenizer.json"]
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises plain Exception on a file that it cannot read
        raise damaged(path, str(error)) from error
    pad_id = tokenizer.token_to_id(pad_token) if pad_token is not None else None
    if pad_token is None or pad_id is None:
        raise damaged(files["textual/tokenizer_config.json"], f"its pad_token {pad_token!r} is not in the vocabulary")
    is_cn_clip = entry_family == "cn-clip"
    return ClipTokenizer(
        tokenizer,
        context_length=int(text_config.get("context_length") or _DEFAULT_CONTEXT.get(entry_family, _OPEN_CLIP_CONTEXT)),
        pad_id=pad_id,
        pad_token=pad_token,
        # cn_clip drops control characters that str.split would take for spaces; its tokenizer.json does so by itself.
        collapse=not is_cn_clip,
        canonicalize=(text_config.get("tokenizer_kwargs") or {}).get("clean") == "canonicalize",
        nllb=not is_cn_clip and model_name.rsplit("/", 1)[-1].startswith("nllb"),
    )


def _token(value: Any) -> str | None:
    """Return a token of a Hugging Face configuration, where it is a string or an object with ``content``."""
    token = value.get("content") if isinstance(value, dict) else value
    return token if isinstance(token, str) else None
