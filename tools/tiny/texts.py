"""Names of emoji: CLDR's names and keywords in Chinese (both scripts) and English, and the vocabulary they need."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tools.tiny.artwork import code_points, drawn_in, is_variant

LANGUAGES = ("zh", "zh-Hant", "en")
# A name says which emoji is meant far more surely than a keyword does.
_NAME_WEIGHT = 6.0
TEMPLATES = ("{}的照片", "一张{}的图片", "{}图", "a photo of {}", "a picture of a {}")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


@dataclass(frozen=True, slots=True)
class Annotation:
    """Name and keywords of one emoji in one language."""

    name: str
    keywords: tuple[str, ...]


Annotations = Mapping[str, Mapping[str, Annotation]]
"""Language to emoji to what it is called."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and the emoji that it may mean."""

    text: str
    share: float
    """Weight against the other texts: it is shown as often."""
    emoji: tuple[int, ...]
    weights: tuple[float, ...]
    """One per emoji, adding up to 1."""


def read_annotations(modules: Path) -> Annotations:
    """Read CLDR's annotations of every emoji from its npm packages."""
    return {language: _read_language(modules, language) for language in LANGUAGES}


def emoji_to_learn(modules: Path, annotations: Annotations) -> list[str]:
    """Return the emoji that have a name in all languages and a picture in Twemoji or Noto, sorted.

    Variants (``is_variant``) are left out.
    """
    drawn = drawn_in(modules, "twemoji").keys() | drawn_in(modules, "noto").keys()
    named = set.intersection(*(set(annotations[language]) for language in LANGUAGES))
    return sorted(code for code in drawn & named if not is_variant(code) and code not in "0123456789")


def labelled_texts(annotations: Annotations, emoji: list[str]) -> list[LabelledText]:
    """Return every name and keyword once, with all the emoji that it belongs to, and names in sentences.

    The sentences are such as people search by. Half of what is shown are names, four tenths keywords, a tenth
    sentences.
    """
    meanings: dict[str, dict[int, float]] = defaultdict(dict)
    names = set()
    for language in LANGUAGES:
        for number, code in enumerate(emoji):
            annotation = annotations[language][code]
            names.add(annotation.name)
            meanings[annotation.name][number] = _NAME_WEIGHT
            for keyword in annotation.keywords:
                meanings[keyword].setdefault(number, 1.0)
    sentences = {
        template.format(name): meanings[name]
        for name in sorted(names)
        for template in TEMPLATES
        if _fits(template, name)
    }
    shares = {True: 0.5 / len(names), False: 0.4 / (len(meanings) - len(names))}
    texts = [_labelled(text, weights, shares[text in names]) for text, weights in meanings.items()]
    return texts + [
        _labelled(text, weights, 0.1 / len(sentences)) for text, weights in sentences.items() if text not in meanings
    ]


def pruned_tokenizer(full: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """Return CN-CLIP's tokenizer with the word pieces that ``texts`` use.

    It keeps single ASCII letters and digits, and the special tokens. Texts like these are cut as before; in others, a
    long English word falls to smaller pieces and a rare character to [UNK].
    """
    used = Counter(piece for text in texts for piece in full.encode(text).tokens)
    known = full.get_vocab()
    letters = [char for char in map(chr, range(33, 127)) if char in known]
    pieces = dict.fromkeys([*SPECIAL, *letters, *(f"##{char}" for char in letters if f"##{char}" in known)])
    pieces |= dict.fromkeys(sorted(used, key=known.__getitem__))
    content: dict[str, Any] = json.loads(full.to_str())
    content["model"]["vocab"] = vocabulary = {piece: index for index, piece in enumerate(pieces)}
    for token in content["post_processor"]["special_tokens"].values():
        token["ids"] = [vocabulary[token["id"]]]
    content["padding"]["pad_id"] = vocabulary["[PAD]"]
    return Tokenizer.from_str(json.dumps(content))


def _read_language(modules: Path, language: str) -> dict[str, Annotation]:
    found = {}
    for package, key in (
        ("cldr-annotations-full", "annotations"),
        ("cldr-annotations-derived-full", "annotationsDerived"),
    ):
        content = json.loads((modules / package / key / language / "annotations.json").read_text(encoding="utf-8"))
        for characters, annotation in content[key]["annotations"].items():
            if "tts" in annotation:
                found[code_points(characters)] = Annotation(annotation["tts"][0], tuple(annotation.get("default", ())))
    return found


def _labelled(text: str, weights: Mapping[int, float], share: float) -> LabelledText:
    total = sum(weights.values())
    return LabelledText(text, share, tuple(weights), tuple(weight / total for weight in weights.values()))


def _fits(template: str, name: str) -> bool:
    """Return whether a template and a name are of one language."""
    return template.isascii() == name.isascii()
