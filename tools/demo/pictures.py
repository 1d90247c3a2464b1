"""The demo's sample pictures: documents in Chinese and English, rendered, and drawings. The same bytes on every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.demo.drawings import DRAWINGS, draw

_SIMPLIFIED_CHINESE = 2
"""Number of the face in the collection of Noto Sans CJK."""


@dataclass(frozen=True, slots=True)
class Document:
    """A picture of text."""

    name: str
    lines: tuple[str, ...]
    paper: str = "#ffffff"
    ink: str = "#202020"
    angle: float = 0.0
    """Degrees, counter-clockwise."""


DOCUMENTS = (
    Document(
        "invoice-hotel",
        ("增值税电子普通发票", "发票号码 04482913", "开票日期 2024年02月29日", "杭州西湖大酒店", "价税合计 ¥ 688.00"),
        ink="#96202a",
    ),
    Document(
        "invoice-laptop",
        ("增值税专用发票 INVOICE", "货物名称 笔记本电脑 ThinkPad X1", "数量 2 台 单价 8999.00", "北京远航科技有限公司"),
        angle=1.5,
    ),
    Document(
        "receipt-market",
        ("家家乐超市 购物小票", "苹果 2.5 kg  19.80", "牛奶 1 L  12.50", "合计 32.30", "谢谢惠顾"),
        paper="#f7f3e6",
    ),
    Document(
        "menu",
        ("宫保鸡丁 Kung Pao Chicken 38", "麻婆豆腐 Mapo Tofu 26", "北京烤鸭 Peking Duck 168", "珍珠奶茶 Bubble Tea 15"),
        paper="#f2e6cf",
    ),
    Document("sign-roadwork", ("前方施工 请绕行", "ROAD WORK AHEAD"), paper="#f4a300", ink="#101010", angle=-2),
    Document("sign-metro", ("人民广场站", "People's Square", "地铁2号线 出口 15"), paper="#14468f", ink="#ffffff"),
    Document("part-label", ("零件编号 RE16-204B", "电阻 10 kΩ ±1%", "Lot A-102  2023/11/05"), paper="#eeeeea"),
    Document(
        "business-card",
        ("王建国 工程师", "上海晨曦文具股份有限公司", "Tel 021-5555 0102", "wang@example.com"),
        paper="#fafafa",
    ),
    Document(
        "chat",
        ("明天下午三点开会 don't be late", "会议室改到 Building 7 的二楼", "The Wi-Fi password is sunflower88"),
        paper="#1c1c20",
        ink="#ebebeb",
    ),
    Document("poem", ("春眠不觉晓，处处闻啼鸟。", "夜来风雨声，花落知多少。"), paper="#fbf6e9", ink="#3c3c3c"),
    Document(
        "ticket", ("火车票 G7 次", "北京南 → 上海虹桥", "二等座 05车 12F", "2024年10月01日 08:00 开"), paper="#dfeef6"
    ),
    Document(
        "snow-warning", ("暴雪橙色预警信号", "Heavy snow expected tonight", "请减少外出 注意防寒"), paper="#fff3e0"
    ),
)


def make(folder: Path) -> int:
    """Write the pictures into ``folder`` that are not there yet, and return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for document in DOCUMENTS:
        path = folder / f"{document.name}.jpg"
        if not path.exists():
            _render(document).save(path, quality=85)
    for name in DRAWINGS:
        path = folder / f"drawing-{name}.png"
        if not path.exists():
            draw(name).save(path)
    return len(DOCUMENTS) + len(DRAWINGS)


def _render(document: Document) -> Image.Image:
    size, margin = 44, 70
    longest = max(_font(size).getlength(line) for line in document.lines)
    image = Image.new(
        "RGB", (round(longest) + 2 * margin, round(len(document.lines) * size * 1.8) + 2 * margin), document.paper
    )
    pen = ImageDraw.Draw(image)
    for row, line in enumerate(document.lines):
        pen.text((margin, margin + round(row * size * 1.8)), line, font=_font(size), fill=document.ink)
    image = image.rotate(document.angle, resample=Image.Resampling.BICUBIC, fillcolor=document.paper)
    grain = np.random.default_rng(len(document.lines)).normal(0, 4, (image.height, image.width, 1))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Load Noto Sans CJK SC from the package manimgx-fonts-cjk, which ``make demo`` installs."""
    spec = find_spec("manimgx_fonts_cjk")
    if spec is None or spec.origin is None:
        raise SystemExit("The demo's pictures need the package manimgx-fonts-cjk: `make demo` installs it.")
    return ImageFont.truetype(str(Path(spec.origin).parent / "NotoSansCJK-VF.otf.ttc"), size, index=_SIMPLIFIED_CHINESE)


def names() -> Sequence[str]:
    """Return the file names of the pictures."""
    return [f"{document.name}.jpg" for document in DOCUMENTS] + [f"drawing-{name}.png" for name in DRAWINGS]
