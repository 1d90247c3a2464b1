"""CLIP texts to tokens: CN-CLIP's ids against cn_clip's own tokenizer, and the cleaning that Immich's models want."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import ErrorCode, ModelUnavailable
from models.convert.configuration import write_configuration
from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import installed_vocabulary, read_vocabulary
from runners.clip.languages import flores_token
from runners.clip.tokenizer import ClipTokenizer, read_tokenizer
from tests.cnclip_reference import reference_tokens
from tools.harness.tiny_clip import clip_files, tiny_clip_folder

_ALPHABETS = (
    "的一是在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里",
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
    "éÈüÑçÅøßẞﬁİıΑΣσςώЁйÆœǅ",
    "😀🐱👨‍👩‍👧🇨🇳❤️☕🫠",
    "，。！？；：“”【】（）《》、…·ＡＢＣａｂｃ１２３！＃　",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    " \t\n\r\x00\x07\x1c\x85\u00a0\u00ad\u200b\u2028\u2029\u3000\ufeff\ufffd",
    "\u0301\u0308\u0e31\u093f\u3099각ひらガ한글ไทย",
)
_PHRASES = (
    "营业执照",
    "[CLS]",
    "[SEP][PAD]",
    "RE16-2024",
    "unaffable",
    "un" * 120,
    "皮卡丘",
    "ΑΣ ΣΑΣ.Σ",
    "don't",
    "\ue000\U000f0000",
)


@pytest.fixture(scope="module")
def converted_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    folder = tmp_path_factory.mktemp("cn-clip")
    write_configuration(folder, 224, cn_clip_tokenizer(read_vocabulary(installed_vocabulary())))
    return read_tokenizer("ViT-B-16", "cn-clip", clip_files(folder))


def test_tokens_of_12000_texts_equal_those_of_cn_clip(converted_tokenizer: ClipTokenizer) -> None:
    generator = random.Random(20240611)
    texts = [
        "",
        " ",
        "\x00",
        "一只猫",
        "字" * 500,
        "word " * 100,
        *_PHRASES,
        *(_random_text(generator) for _ in range(12_000)),
    ]
    ids, mask = converted_tokenizer.encode([(text, "zh-CN") for text in texts])
    expected = reference_tokens(texts)
    wrong = [texts[row] for row in np.flatnonzero((ids != expected).any(axis=1))]
    assert wrong == []
    np.testing.assert_array_equal(mask, expected != 0)


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=120))
def test_tokens_of_any_text_equal_those_of_cn_clip(converted_tokenizer: ClipTokenizer, text: str) -> None:
    np.testing.assert_array_equal(converted_tokenizer.encode([(text, None)])[0], reference_tokens([text]))


def test_an_over_long_text_keeps_its_separator_at_the_end(converted_tokenizer: ClipTokenizer) -> None:
    ids, mask = converted_tokenizer.encode([("长" * 200, None)])
    assert (ids.shape, int(ids[0, 0]), int(ids[0, -1]), int(mask.sum())) == ((1, 52), 101, 102, 52)


def test_half_a_surrogate_pair_is_left_out(converted_tokenizer: ClipTokenizer) -> None:
    np.testing.assert_array_equal(converted_tokenizer.encode([("猫\ud83d", None)])[0], reference_tokens(["猫"]))


def _random_text(generator: random.Random) -> str:
    parts: list[str] = []
    for _ in range(generator.randint(1, 12)):
        if generator.random() < 0.15:
            parts.append(generator.choice(_PHRASES))
        else:
            parts.append("".join(generator.choices(generator.choice(_ALPHABETS), k=generator.randint(1, 9))))
    return generator.choice(("", "", " ")).join(parts)


def immich_tokenizer(folder: Path, name: str = "ViT-B-32__openai", **options: object) -> ClipTokenizer:
    return read_tokenizer(name, "immich-clip", clip_files(tiny_clip_folder(folder, immich=True, **options)))  # type: ignore[arg-type]


def test_whitespace_is_collapsed_for_immichs_models(tmp_path: Path) -> None:
    assert immich_tokenizer(tmp_path).clean("  a \n\t b\u3000c ", None) == "a b c"


def test_only_models_that_ask_for_it_are_canonicalised(tmp_path: Path) -> None:
    text = "Hello,  World! A - b's"
    assert immich_tokenizer(tmp_path / "plain").clean(text, None) == "Hello, World! A - b's"
    canonical = immich_tokenizer(tmp_path / "siglip", text_config={"tokenizer_kwargs": {"clean": "canonicalize"}})
    assert canonical.clean(text, None) == "hello world a bs"


@pytest.mark.parametrize(
    ("tag", "token"),
    [("de", "deu_Latn"), ("zh-CN", "zho_Hans"), ("zh-TW", "zho_Hant"), ("zh-Hant-HK", "zho_Hant"),
     ("pt_BR", "por_Latn"),
     ("sr-Cyrl", "srp_Cyrl"), ("EN-us", "eng_Latn"), ("ja", "jpn_Jpan"), ("tlh", "eng_Latn"), ("", "eng_Latn")],
)  # fmt: skip
def test_a_language_tag_finds_its_flores_token(tag: str, token: str) -> None:
    assert flores_token(tag) == token


def test_nllb_texts_begin_with_the_token_of_their_own_language(tmp_path: Path) -> None:
    languages = ("deu_Latn", "zho_Hans", "eng_Latn")
    tokenizer = immich_tokenizer(tmp_path, "nllb-clip-base-siglip__v1", languages=languages)
    ids, _ = tokenizer.encode([("Hund", "de"), ("Hund", "zh-CN"), ("Hund", "xx"), ("Hund", None)])
    first = len(_vocabulary(tmp_path))
    assert [int(row[1]) for row in ids[:3]] == [first, first + 1, first + 2]
    np.testing.assert_array_equal(ids[0, 2:6], ids[3, 1:5])  # no language, no token: the text follows [CLS] directly


def test_other_models_do_not_look_at_the_language(tmp_path: Path) -> None:
    ids, _ = immich_tokenizer(tmp_path, languages=("deu_Latn",)).encode([("Hund", "de"), ("Hund", None)])
    np.testing.assert_array_equal(ids[0], ids[1])


def test_the_context_length_is_77_unless_the_configuration_says_otherwise(tmp_path: Path) -> None:
    assert immich_tokenizer(tmp_path / "64", context_length=64).context_length == 64
    (tiny_clip_folder(tmp_path / "77", immich=True) / "config.json").write_text("{}")
    assert read_tokenizer("x", "immich-clip", clip_files(tmp_path / "77")).context_length == 77


def test_a_pad_token_may_be_written_as_an_object(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path, immich=True)
    (folder / "textual/tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    assert read_tokenizer("x", "immich-clip", clip_files(folder)).encode([("a", None)])[0][0, -1] == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("textual/tokenizer.json", "{}"),
        ("textual/tokenizer_config.json", '{"pad_token": "<x>"}'),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = tiny_clip_folder(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(ModelUnavailable, match=name) as caught:
        read_tokenizer("x", "cn-clip", clip_files(folder))
    assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE


def _vocabulary(folder: Path) -> dict[str, int]:
    model: dict[str, dict[str, int]] = json.loads((folder / "textual/tokenizer.json").read_text())["model"]
    return model["vocab"]
