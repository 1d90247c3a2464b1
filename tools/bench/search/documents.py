"""300 made-up documents with known text, for ``search-quality``: receipts, menus, signs, tickets, screenshots, cards.

A third Chinese, a third English, a third mixed; a quarter of those with Chinese are in traditional characters. Every
third is turned by up to four degrees. JPEG at quality 60. The same on every run; nothing in them is real.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

import opencc

from tools.bench.search import phrases
from tools.harness import rendered
from tools.harness.rendered import Look

COUNT = 300
_JPEG_QUALITY = 60
_SEED = 20260302
_PLAIN = Look()


@dataclass(frozen=True, slots=True)
class Document:
    """The text and look of one made-up picture."""

    name: str
    """``receipt-007``."""
    lines: tuple[str, ...]
    cells: tuple[tuple[str, str], ...] = ()
    """Of a receipt: labels and values; ``lines`` has them joined."""
    look: Look = _PLAIN

    def jpeg(self) -> bytes:
        """Render the picture: 1080 pixels wide, as high as its text."""
        rows = max(len(self.lines), len(self.cells))
        height = 160 + round(rows * self.look.font_size * self.look.line_pitch)
        size = (1080, max(640, height + (120 if self.look.angle else 0)))
        if self.cells:
            image = rendered.rows(self.cells, size=size, look=self.look, margin=110)
        else:
            image = rendered.page(self.lines, size=size, look=self.look, margin=110)
        return rendered.jpeg(image, quality=_JPEG_QUALITY)


def documents(count: int = COUNT) -> list[Document]:
    """Return the first ``count`` of them; kinds, languages and looks take turns."""
    random = Random(_SEED)
    traditional = opencc.OpenCC("s2t")
    made = []
    for number in range(COUNT):
        kind = list(_KINDS)[number % len(_KINDS)]
        language = ("zh", "en", "mixed")[number // len(_KINDS) % 3]
        document = _KINDS[kind](random, language)
        if language != "en" and number // 18 % 4 == 3:
            document = replace(
                document,
                lines=tuple(map(traditional.convert, document.lines)),
                cells=tuple((traditional.convert(label), value) for label, value in document.cells),
            )
        angle = random.uniform(-4, 4) if number % 3 == 0 else 0.0
        made.append(replace(document, name=f"{kind}-{number:03}", look=replace(_look(random, kind), angle=angle)))
    return made[:count]


def _look(random: Random, kind: str) -> Look:
    if kind == "sign":
        return random.choice(_SIGNS)
    papers = ((255, 255, 255), (250, 246, 232), (240, 240, 235), (225, 215, 190))
    if kind == "screenshot" and random.random() < 0.5:
        return Look(font_size=random.choice((32, 36, 40)), ink=(235, 235, 235), paper=(28, 28, 32))
    ink = random.choice(((20, 20, 20), (60, 60, 60), (120, 30, 40), (30, 50, 110)))
    return Look(
        random.choice((32, 36, 40)),
        random.choice(("Regular", "Medium")),
        ink,
        random.choice(papers),
        noise=random.choice((0, 0, 6)),
    )


_SIGNS = (
    Look(64, "Bold", (255, 255, 255), (20, 70, 150)),
    Look(64, "Bold", (255, 255, 255), (10, 110, 60)),
    Look(64, "Black", (20, 20, 20), (250, 205, 40)),
    Look(64, "Medium", (250, 240, 220), (130, 30, 30)),
)


def _receipt(random: Random, language: str) -> Document:
    shop, _ = _named(random, phrases.SHOPS, language)
    goods = random.sample(phrases.GOODS, 4)
    labels = {"zh": 0, "en": 1, "mixed": 2}[language]
    cells = [
        (shop, ""),
        (("收银小票", "RECEIPT", "小票 Receipt")[labels], f"{random.choice('ABCDE')}-{random.randint(100, 999)}"),
    ]
    total = 0
    for good in goods:
        price = random.randint(3, 400)
        total += price
        cells.append((_said(good, language), f"{price}.{random.choice(('00', '50', '90'))}"))
    cells.append((("合计", "TOTAL", "合计 Total")[labels], f"¥{total}.00"))
    cells.append(
        (
            ("支付方式", "Paid by", "支付 Paid")[labels],
            random.choice(("微信支付", "支付宝", "现金") if labels != 1 else ("VISA", "CASH", "AMEX")),
        )
    )
    cells.append((("交易单号", "Order No.", "单号 No.")[labels], str(random.randint(10**9, 10**10 - 1))))
    return Document("", tuple(f"{label} {value}".strip() for label, value in cells), tuple(cells))


def _menu(random: Random, language: str) -> Document:
    shop, _ = _named(random, phrases.RESTAURANTS, language)
    dishes = [f"{_said(dish, language)} {random.randint(8, 168)}" for dish in random.sample(phrases.DISHES, 7)]
    return Document("", (shop, {"zh": "今日菜单", "en": "Today's Menu", "mixed": "菜单 Menu"}[language], *dishes))


def _sign(random: Random, language: str) -> Document:
    texts = [_said(text, language) for text in random.sample(phrases.SIGN_TEXTS, 2)]
    place = _said(random.choice(phrases.PLACES), language)
    return Document("", (*texts, place, f"{random.choice('ABCDEFGH')}{random.randint(1, 40)}"))


def _ticket(random: Random, language: str) -> Document:
    one, other = random.sample(phrases.CITIES, 2)
    code = f"{random.choice(('G', 'D', 'CA', 'MU', 'RE'))}{random.randint(10, 9999)}"
    date = f"2024-{random.randint(1, 12):02}-{random.randint(1, 28):02}"
    name = random.choice(phrases.PEOPLE)
    route = f"{_said(one, language)} {'-' if language == 'en' else '至'} {_said(other, language)}"
    labels = {"zh": ("车票", "日期", "座位", "旅客", "票价"), "en": ("TICKET", "Date", "Seat", "Passenger", "Fare")}
    ticket, day, seat, passenger, fare = labels.get(
        language, ("车票 Ticket", "日期 Date", "座位 Seat", "旅客 Passenger", "票价 Fare")
    )
    return Document(
        "",
        (
            f"{ticket} {code}",
            route,
            f"{day} {date} {random.randint(6, 22):02}:{random.choice(('05', '20', '45'))}",
            f"{seat} {random.randint(1, 16):02}{'车' if language == 'zh' else '-'}"
            f"{random.randint(1, 20):02}{random.choice('ABCDF')}",
            f"{passenger} {_said(name, language)}",
            f"{fare} ¥{random.randint(40, 1900)}.50",
        ),
    )


def _screenshot(random: Random, language: str) -> Document:
    messages = [
        _said(message, "en" if language == "en" or (language == "mixed" and at % 2) else "zh")
        for at, message in enumerate(random.sample(phrases.MESSAGES, 6))
    ]
    clock = f"{random.randint(0, 23):02}:{random.randint(0, 59):02}"
    code = random.randint(100000, 999999)
    last = {"zh": f"验证码 {code} 请勿告诉他人", "en": f"Your code is {code}", "mixed": f"验证码 code {code}"}[language]
    return Document("", (clock, *messages, last))


def _card(random: Random, language: str) -> Document:
    company, domain = _named(random, phrases.COMPANIES, language)
    person = random.choice(phrases.PEOPLE)
    title, city, road = random.choice(phrases.TITLES), random.choice(phrases.CITIES), random.choice(phrases.ROADS)
    user = person[1].split(" ")[0].lower()
    return Document(
        "",
        (
            company,
            f"{_said(person, language)}",
            _said(title, language),
            f"{_said(city, language)} {_said(road, language)} "
            f"{random.randint(1, 999)}{'号' if language == 'zh' else ''}",
            f"{'电话' if language == 'zh' else 'Tel'} "
            f"1{random.randint(30, 89)}{random.randint(1000, 9999)}{random.randint(1000, 9999)}",
            f"{user}@{domain}.com",
        ),
    )


_KINDS: dict[str, Callable[[Random, str], Document]] = {
    "receipt": _receipt,
    "menu": _menu,
    "sign": _sign,
    "ticket": _ticket,
    "screenshot": _screenshot,
    "card": _card,
}


def _said(pair: Sequence[str], language: str) -> str:
    return {"zh": pair[0], "en": pair[1], "mixed": f"{pair[0]} {pair[1]}"}[language]


def _named(random: Random, names: Sequence[tuple[str, str]], language: str) -> tuple[str, str]:
    pair = random.choice(names)
    return _said(pair, language), "".join(filter(str.isalpha, pair[1].split(" ")[0])).lower()
