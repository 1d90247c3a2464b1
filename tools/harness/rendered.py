"""Pictures of text, rendered: the same bytes on every run, with the lines that a reader should find.

Set in Noto Sans CJK (Simplified Chinese face) from the package ``manimgx-fonts-cjk``, which has Chinese and Latin
characters.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

_SIMPLIFIED_CHINESE = 2
"""Number of the face in the font collection: Japanese, Korean, Simplified Chinese, Taiwan, Hong Kong."""


@dataclass(frozen=True, slots=True)
class Look:
    """The look of a page. Sizes are in pixels, colours are RGB."""

    font_size: int = 44
    weight: str = "Regular"
    """Thin, Light, DemiLight, Regular, Medium, Bold or Black."""
    ink: tuple[int, int, int] = (20, 20, 20)
    paper: tuple[int, int, int] = (255, 255, 255)
    line_pitch: float = 1.8
    """Distance of baselines, in font sizes."""
    angle: float = 0.0
    """Degrees by which the page is turned, counter-clockwise."""
    noise: float = 0.0
    """Standard deviation of grey noise, 0 to 255."""
    blur: float = 0.0
    """Radius of a Gaussian blur."""


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page and its text."""

    name: str
    lines: tuple[str, ...]
    """In reading order."""
    data: bytes
    """JPEG, quality 80, without chroma subsampling, as Immich's previews are."""


@lru_cache(maxsize=64)
def font(size: int, weight: str = "Regular") -> ImageFont.FreeTypeFont:
    """Load Noto Sans CJK SC at ``size`` pixels."""
    spec = find_spec("manimgx_fonts_cjk")
    if spec is None or spec.origin is None:
        raise RuntimeError("Rendering text needs the package manimgx-fonts-cjk: pip install manimgx-fonts-cjk")
    face = ImageFont.truetype(str(Path(spec.origin).parent / "NotoSansCJK-VF.otf.ttc"), size, index=_SIMPLIFIED_CHINESE)
    face.set_variation_by_name(weight)
    return face


def draw_lines(image: Image.Image, lines: Sequence[str], at: tuple[int, int], look: Look = Look()) -> None:
    """Draw ``lines`` below each other, the first with its top left corner at ``at``, (x, y)."""
    pen = ImageDraw.Draw(image)
    for row, text in enumerate(lines):
        y = at[1] + round(row * look.font_size * look.line_pitch)
        pen.text((at[0], y), text, font=font(look.font_size, look.weight), fill=look.ink)


def page(
    lines: Sequence[str], *, size: tuple[int, int] = (1440, 1920), look: Look = Look(), margin: int = 100
) -> Image.Image:
    """Render a page of ``size``, (width, height), with one column of ``lines``."""
    image = Image.new("RGB", size, look.paper)
    draw_lines(image, lines, (margin, margin), look)
    return _finish(image, look)


def two_columns(
    left: Sequence[str],
    right: Sequence[str],
    *,
    size: tuple[int, int] = (1440, 1080),
    look: Look = Look(font_size=36),
    margin: int = 80,
) -> Image.Image:
    """Render a page of two columns; both have the ``line_pitch`` of ``look``, so their lines stand side by side."""
    image = Image.new("RGB", size, look.paper)
    draw_lines(image, left, (margin, margin), look)
    draw_lines(image, right, (size[0] // 2 + margin // 2, margin), look)
    return _finish(image, look)


def rows(
    cells: Sequence[tuple[str, str]],
    *,
    size: tuple[int, int] = (1080, 1080),
    look: Look = Look(),
    margin: int = 80,
) -> Image.Image:
    """Render a receipt: the first cell of each row at the left edge, the second flush with the right edge."""
    image = Image.new("RGB", size, look.paper)
    draw_lines(image, [label for label, _ in cells], (margin, margin), look)
    pen = ImageDraw.Draw(image)
    for row, (_, value) in enumerate(cells):
        y = margin + round(row * look.font_size * look.line_pitch)
        pen.text((size[0] - margin, y), value, font=font(look.font_size, look.weight), fill=look.ink, anchor="ra")
    return _finish(image, look)


def jpeg(image: Image.Image, *, quality: int = 80) -> bytes:
    """Encode as Immich encodes previews: baseline, 4:4:4."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """Encode without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@lru_cache(maxsize=1)
def mixed_pages() -> tuple[Page, ...]:
    """Render eight 1440-pixel pages of mixed Chinese and English lines, in eight looks."""
    return tuple(
        Page(name, tuple(lines), jpeg(page(lines, size=size, look=look)))
        for name, (lines, size, look) in _MIXED.items()
    )


def character_accuracy(read: Sequence[str], expected: Sequence[str]) -> float:
    """Return 1 - edit distance / length of what is expected; at least 0.

    All lines count together, without blanks.
    """
    got, want = ("".join("".join(lines).split()) for lines in (read, expected))
    return max(0.0, 1 - edit_distance(got, want) / max(1, len(want)))


def edit_distance(one: str, other: str) -> int:
    """Return the Levenshtein distance: the fewest insertions, deletions and substitutions of a character."""
    previous = list(range(len(other) + 1))
    for row, character in enumerate(one, start=1):
        current = [row]
        for column, wanted in enumerate(other, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (character != wanted)))
        previous = current
    return previous[-1]


def _finish(image: Image.Image, look: Look) -> Image.Image:
    if look.angle:
        image = image.rotate(look.angle, resample=Image.Resampling.BICUBIC, fillcolor=look.paper)
    if look.blur:
        image = image.filter(ImageFilter.GaussianBlur(look.blur))
    if look.noise:
        grain = np.random.default_rng(20240229).normal(0, look.noise, (image.height, image.width, 1))
        image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    return image


_MIXED: dict[str, tuple[list[str], tuple[int, int], Look]] = {
    "licence": (
        [
            "营业执照 BUSINESS LICENSE",
            "统一社会信用代码 91310115MA1K4XYZ7Q",
            "名称 上海晨曦文具股份有限公司",
            "类型 有限责任公司 (自然人投资或控股)",
            "法定代表人 王建国",
            "注册资本 人民币 5000 万元整",
            "成立日期 2015年06月18日",
            "住所 上海市浦东新区世纪大道 1288 号",
            "Registered address: 1288 Century Avenue",
        ],
        (1440, 1920),
        Look(font_size=48, weight="Medium", paper=(250, 246, 232)),
    ),
    "invoice": (
        [
            "增值税电子普通发票 INVOICE",
            "发票号码 No. 04482913",
            "开票日期 2024年02月29日",
            "购买方 北京远航科技有限公司",
            "货物名称 笔记本电脑 ThinkPad X1",
            "数量 2 台 单价 8999.00",
            "价税合计 壹万柒仟玖佰玖拾捌元整",
            "Total amount 17998.00 CNY",
            "收款人 李小红 复核 张伟",
        ],
        (1440, 1920),
        Look(font_size=40, ink=(150, 30, 40)),
    ),
    "chat-dark": (
        [
            "明天下午三点开会 don't be late",
            "会议室改到 Building 7 的二楼",
            "OK 收到，我会提前十分钟到",
            "记得带上 MacBook 和充电器",
            "The Wi-Fi password is sunflower88",
            "晚上一起吃火锅怎么样？",
            "好啊，老地方见 see you there",
        ],
        (1440, 2560),
        Look(font_size=52, ink=(235, 235, 235), paper=(28, 28, 32), line_pitch=2.4),
    ),
    "notes-small": (
        [
            "第一章 机器学习导论 Introduction to Machine Learning",
            "监督学习使用带有标签的数据来训练模型 supervised learning",
            "无监督学习寻找数据中隐藏的结构 clustering and density",
            "强化学习通过奖励信号学习策略 policy gradient methods",
            "过拟合是指模型在训练集上表现良好而在测试集上很差",
            "Regularization adds a penalty to the loss function",
            "交叉验证可以更可靠地估计泛化误差 cross validation",
            "梯度下降沿着负梯度方向更新参数 learning rate 0.001",
            "卷积神经网络擅长处理图像 convolutional networks",
            "Transformer 模型依靠注意力机制 attention is all you need",
        ],
        (1920, 1440),
        Look(font_size=32, weight="Light"),
    ),
    "sign-turned": (
        [
            "前方施工 请绕行",
            "ROAD WORK AHEAD",
            "人民广场站 People's Square",
            "地铁2号线 Metro Line 2",
            "出口 Exit 15",
            "请勿吸烟 No Smoking",
        ],
        (1440, 1440),
        Look(font_size=72, weight="Bold", ink=(255, 255, 255), paper=(20, 70, 150), angle=3.0),
    ),
    "menu-grainy": (
        [
            "宫保鸡丁 Kung Pao Chicken",
            "麻婆豆腐 Mapo Tofu",
            "北京烤鸭 Peking Duck",
            "小笼包 Soup Dumplings",
            "扬州炒饭 Yangzhou Fried Rice",
            "珍珠奶茶 Bubble Tea",
            "欢迎光临 Welcome",
        ],
        (1440, 1920),
        Look(font_size=56, paper=(225, 215, 190), noise=12.0),
    ),
    "label-blurred": (
        [
            "生产日期 2023/11/05 保质期 12 个月",
            "配料 小麦粉 白砂糖 植物油 食用盐",
            "Ingredients: wheat flour, sugar, salt",
            "净含量 Net weight 250 g",
            "请置于阴凉干燥处 Keep in a cool dry place",
            "产地 广东省广州市 Made in China",
        ],
        (1440, 1440),
        Look(font_size=46, ink=(70, 50, 30), paper=(240, 240, 235), blur=1.2),
    ),
    "book": (
        [
            "春眠不觉晓，处处闻啼鸟。",
            "夜来风雨声，花落知多少。",
            "In spring one sleeps absent to morning",
            "and everywhere hears birdsong",
            "床前明月光，疑是地上霜。",
            "举头望明月，低头思故乡。",
            "Before my bed a pool of light",
            "I wonder if it is frost on the ground",
        ],
        (1440, 1920),
        Look(font_size=60, weight="DemiLight", ink=(60, 60, 60), angle=-1.0),
    ),
}
