"""Language tokens of NLLB (FLORES-200 codes) for the language tags of Immich's interface.

Codes: https://github.com/facebookresearch/flores/blob/main/flores200/README.md. Immich's own server sends ``jpn_Hira``
and ``lav_Latn``, which are not among NLLB's tokens; Japanese and Latvian are ``jpn_Jpan`` and ``lvs_Latn`` here.
"""

from __future__ import annotations

DEFAULT = "eng_Latn"

# fmt: off
_TOKENS = {
    "af": "afr_Latn", "am": "amh_Ethi", "ar": "arb_Arab", "az": "azj_Latn", "be": "bel_Cyrl", "bg": "bul_Cyrl",
    "bn": "ben_Beng", "bs": "bos_Latn", "ca": "cat_Latn", "cs": "ces_Latn", "cy": "cym_Latn", "da": "dan_Latn",
    "de": "deu_Latn", "el": "ell_Grek", "en": "eng_Latn", "eo": "epo_Latn", "es": "spa_Latn", "et": "est_Latn",
    "eu": "eus_Latn", "fa": "pes_Arab", "fi": "fin_Latn", "fil": "tgl_Latn", "fr": "fra_Latn", "ga": "gle_Latn",
    "gl": "glg_Latn", "gsw": "deu_Latn", "gu": "guj_Gujr", "he": "heb_Hebr", "hi": "hin_Deva", "hr": "hrv_Latn",
    "hu": "hun_Latn", "hy": "hye_Armn", "id": "ind_Latn", "is": "isl_Latn", "it": "ita_Latn", "ja": "jpn_Jpan",
    "ka": "kat_Geor", "kk": "kaz_Cyrl", "km": "khm_Khmr", "kmr": "kmr_Latn", "kn": "kan_Knda", "ko": "kor_Hang",
    "lb": "ltz_Latn", "lt": "lit_Latn", "lv": "lvs_Latn", "mfa": "zsm_Latn", "mk": "mkd_Cyrl", "ml": "mal_Mlym",
    "mn": "khk_Cyrl", "mr": "mar_Deva", "ms": "zsm_Latn", "my": "mya_Mymr", "nb": "nob_Latn", "ne": "npi_Deva",
    "nl": "nld_Latn", "nn": "nno_Latn", "no": "nob_Latn", "pa": "pan_Guru", "pl": "pol_Latn", "pt": "por_Latn",
    "ro": "ron_Latn", "ru": "rus_Cyrl", "si": "sin_Sinh", "sk": "slk_Latn", "sl": "slv_Latn", "sq": "als_Latn",
    "sr": "srp_Cyrl", "sv": "swe_Latn", "sw": "swh_Latn", "ta": "tam_Taml", "te": "tel_Telu", "th": "tha_Thai",
    "tl": "tgl_Latn", "tr": "tur_Latn", "uk": "ukr_Cyrl", "ur": "urd_Arab", "uz": "uzn_Latn", "vi": "vie_Latn",
    "yue": "yue_Hant", "zh": "zho_Hans", "zh-hant": "zho_Hant", "zh-hk": "zho_Hant", "zh-mo": "zho_Hant",
    "zh-tw": "zho_Hant",
}
# fmt: on


def flores_token(language: str) -> str:
    """Return the token of a BCP 47 tag (``zh-TW``, ``pt_BR``): that of its longest known prefix, else English."""
    parts = language.lower().replace("_", "-").split("-")
    tags = ("-".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((_TOKENS[tag] for tag in tags if tag in _TOKENS), DEFAULT)
