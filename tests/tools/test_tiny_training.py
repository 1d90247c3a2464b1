"""How cn-clip-tiny is made: emoji and their texts, the pruned vocabulary, augmentation, training that goes on,
recall.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.convert.tokenizer import cn_clip_tokenizer
from models.convert.vocabulary import installed_vocabulary, read_vocabulary
from tools.tiny.artwork import SIDE as ARTWORK_SIDE
from tools.tiny.artwork import Artwork, code_points, is_variant
from tools.tiny.augment import augment
from tools.tiny.batches import text_data
from tools.tiny.evaluate import recall
from tools.tiny.export import averaged_clip, export
from tools.tiny.model import SIDE
from tools.tiny.texts import Annotation, labelled_texts, pruned_tokenizer
from tools.tiny.train import JOINT_SHARE, train

VOCABULARY = read_vocabulary(installed_vocabulary())
EMOJI = ["1f34e", "1f34f", "1f436"]
ANNOTATIONS = {
    "zh": {
        "1f34e": Annotation("红苹果", ("水果", "苹果")),
        "1f34f": Annotation("青苹果", ("水果",)),
        "1f436": Annotation("狗脸", ("宠物",)),
    },
    "zh-Hant": {"1f34e": Annotation("蘋果", ()), "1f34f": Annotation("青蘋果", ()), "1f436": Annotation("狗頭", ())},
    "en": {
        "1f34e": Annotation("red apple", ("fruit",)),
        "1f34f": Annotation("green apple", ("fruit",)),
        "1f436": Annotation("dog face", ("pet", "red apple")),
    },
}


@pytest.mark.parametrize(
    ("emoji", "expected"),
    [
        ("👋", False),
        ("👋🏽", True),
        ("🏽", True),
        ("🇨🇳", True),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿", True),
        ("🏁", False),
        ("🚶‍➡️", True),
        ("👩‍🚀", False),
        ("👨🏿‍🚀", True),
    ],
)
def test_skin_tones_directions_and_country_flags_are_variants(emoji: str, expected: bool) -> None:
    assert is_variant(code_points(emoji)) is expected


def test_an_emoji_is_written_without_its_variation_selector() -> None:
    assert code_points("❤️") == code_points("❤") == "2764"


def test_a_name_means_its_emoji_most_and_a_keyword_all_that_have_it() -> None:
    texts = {text.text: dict(zip(text.emoji, text.weights, strict=True)) for text in labelled_texts(ANNOTATIONS, EMOJI)}
    assert texts["fruit"] == {0: 0.5, 1: 0.5}
    assert texts["red apple"][0] > 4 * texts["red apple"][2] > 0
    assert texts["红苹果的照片"] == texts["红苹果"] == {0: 1.0}
    assert all(sum(weights.values()) == pytest.approx(1) for weights in texts.values())


def test_a_sentence_is_of_one_language_with_the_name_in_it() -> None:
    texts = {text.text for text in labelled_texts(ANNOTATIONS, EMOJI)}
    assert "a photo of dog face" in texts
    assert not {"dog face的照片", "a photo of a 狗脸"} & texts


def test_texts_are_shown_in_the_shares_that_are_promised() -> None:
    texts = labelled_texts(ANNOTATIONS, EMOJI)
    names = {annotation.name for language in ANNOTATIONS.values() for annotation in language.values()}
    assert sum(text.share for text in texts if text.text in names) == pytest.approx(0.5)
    assert sum(text.share for text in texts) == pytest.approx(1)


def test_the_pruned_tokenizer_cuts_the_texts_it_was_pruned_for_as_cn_clip_does() -> None:
    full, texts = cn_clip_tokenizer(VOCABULARY), [text.text for text in labelled_texts(ANNOTATIONS, EMOJI)]
    pruned = pruned_tokenizer(full, texts)
    assert pruned.get_vocab_size() < 300
    assert pruned.get_vocab()["[PAD]"] == 0
    for text in texts:
        ours, expected = pruned.encode(text), full.encode(text)
        assert ours.tokens == expected.tokens
        assert len(ours.ids) == 52


def test_the_pruned_tokenizer_spells_an_unknown_english_word_and_gives_up_an_unknown_character() -> None:
    pruned = pruned_tokenizer(cn_clip_tokenizer(VOCABULARY), ["apple"])
    assert pruned.encode("dog").tokens[:4] == ["[CLS]", "d", "##o", "##g"]
    assert pruned.encode("龙").tokens[:3] == ["[CLS]", "[UNK]", "[SEP]"]


def test_augmented_pictures_are_in_range_and_each_is_changed_in_its_own_way() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(0, 256, (1, 4, ARTWORK_SIDE, ARTWORK_SIDE), generator=generator, dtype=torch.uint8)
    images = augment(one.expand(16, -1, -1, -1), SIDE, generator)
    assert images.shape == (16, 3, SIDE, SIDE)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert len(torch.unique(images.flatten(1), dim=0)) == 16


def test_an_empty_picture_becomes_an_even_ground() -> None:
    images = augment(
        torch.zeros(32, 4, ARTWORK_SIDE, ARTWORK_SIDE, dtype=torch.uint8), SIDE, torch.Generator().manual_seed(1)
    )
    spread = images.flatten(2).std(2).amax(1)
    assert float(spread.median()) < 1e-6  # but for those that got noise


def test_recall_counts_the_queries_whose_picture_is_among_the_first() -> None:
    pictures = np.eye(20, dtype=np.float32)
    texts = pictures.copy()
    texts[0] = np.linspace(1, 2, 20)  # its own picture comes last
    texts[1] = 0
    texts[1, :5] = [3, 2, 3, 0, 0]  # its own comes third
    found = recall(texts, pictures)
    assert found.at_1 == pytest.approx(18 / 20)
    assert found.at_10 == pytest.approx(19 / 20)
    assert recall(texts[2:4], pictures, [2, 3]).at_1 == 1
    assert recall(texts[2:4], pictures, [3, 2]).at_1 == 0


def test_a_model_that_answers_all_alike_finds_nothing() -> None:
    alike = np.ones((30, 4), np.float32)
    assert recall(alike, alike).at_10 == 0


def test_training_goes_on_where_it_was_stopped_and_ends_in_a_model_of_less_than_12_mb(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    artwork = Artwork(
        rng.integers(0, 256, (256, ARTWORK_SIDE, ARTWORK_SIDE, 4), dtype=np.uint8), rng.integers(0, 3, 256)
    )
    texts = labelled_texts(ANNOTATIONS, EMOJI)
    tokenizer = pruned_tokenizer(cn_clip_tokenizer(VOCABULARY), [text.text for text in texts])
    checkpoint = tmp_path / "checkpoint.pt"
    data = text_data(texts, tokenizer, len(EMOJI))
    train(artwork, data, tokenizer, checkpoint, seconds=0.01)
    first = torch.load(checkpoint, weights_only=True)
    train(artwork, data, tokenizer, checkpoint, seconds=(first["spent"] + 0.01) / JOINT_SHARE)
    second = torch.load(checkpoint, weights_only=True)
    assert second["step"] > first["step"] >= 1
    assert second["spent"] > first["spent"]
    assert not torch.equal(first["learner"]["prototypes"], second["learner"]["prototypes"])
    train(
        artwork, data, tokenizer, checkpoint, seconds=second["spent"] + 0.01
    )  # of which JOINT_SHARE is over: the texts alone
    third = torch.load(checkpoint, weights_only=True)
    assert third["step"] > second["step"]
    assert torch.equal(second["averaged"]["module.prototypes"], third["averaged"]["module.prototypes"])
    assert not torch.equal(
        second["averaged"]["module.clip.text_projection"], third["averaged"]["module.clip.text_projection"]
    )
    export(averaged_clip(third), tokenizer, tmp_path / "weights")
    assert sorted(path.name for path in tmp_path.rglob("*.onnx")) == ["model.onnx", "model.onnx"]
