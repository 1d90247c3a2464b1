"""The fonts that the pictures are set in: ten with Chinese characters, of seven foundries, all free, from Debian."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

FOLDER = Path("/usr/share/fonts")


@dataclass(frozen=True, slots=True)
class Font:
    """One face."""

    name: str
    foundry: str
    package: str
    """Of Debian."""
    licence: str
    file: str
    """Below ``FOLDER``."""
    index: int = 0
    """Of the face in a collection."""
    traditional: bool = True
    """True where it has traditional characters."""
    simplified: bool = True

    @property
    def path(self) -> Path:
        """Return the path of the file."""
        return FOLDER / self.file


_OFL, _ARPHIC = "SIL OFL 1.1", "Arphic Public License"
FONTS = (
    Font("Noto Sans CJK SC", "Google, Adobe", "fonts-noto-cjk", _OFL, "opentype/noto/NotoSansCJK-Regular.ttc", 2),
    Font("Noto Serif CJK SC", "Google, Adobe", "fonts-noto-cjk", _OFL, "opentype/noto/NotoSerifCJK-Bold.ttc", 2),
    Font("WenQuanYi Micro Hei", "WenQuanYi", "fonts-wqy-microhei", "Apache-2.0", "truetype/wqy/wqy-microhei.ttc"),
    Font(
        "WenQuanYi Zen Hei", "WenQuanYi", "fonts-wqy-zenhei", "GPL-2 with font exception", "truetype/wqy/wqy-zenhei.ttc"
    ),
    Font("AR PL UKai CN", "Arphic", "fonts-arphic-ukai", _ARPHIC, "truetype/arphic/ukai.ttc"),
    Font("AR PL UMing CN", "Arphic", "fonts-arphic-uming", _ARPHIC, "truetype/arphic/uming.ttc"),
    Font("LXGW WenKai", "LXGW", "fonts-lxgw-wenkai", _OFL, "truetype/lxgw-wenkai/LXGWWenKai-Regular.ttf"),
    Font(
        "Smiley Sans",
        "atelierAnchor",
        "fonts-smiley-sans",
        _OFL,
        "truetype/smiley-sans/SmileySans-Oblique.ttf",
        0,
        False,
    ),
    Font("TW-Kai", "CNS 11643, Taiwan", "fonts-cns11643-kai", _OFL, "truetype/cns11643/TW-Kai-98_1.ttf"),
    Font("cwTeX FangSong", "cwTeX", "fonts-cwtex-fs", "GPL-2", "truetype/cwtex/cwfs.ttf", 0, True, False),
)


@lru_cache(maxsize=256)
def face(font: Font, size: int) -> ImageFont.FreeTypeFont:
    """Load ``font`` at ``size`` pixels."""
    return ImageFont.truetype(str(font.path), size, index=font.index)


def missing() -> list[str]:
    """Return the Debian packages of fonts that are not installed."""
    return sorted({font.package for font in FONTS if not font.path.is_file()})
