"""90 made-up papers for ``search-kinds``: bills with amounts, dates, telephones, numbers and mails in many forms,
notices whose words are broken over line ends, and signs with accents. The same on every run; nothing in them is real.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from random import Random

import opencc

from tools.bench.search import phrases
from tools.harness import rendered
from tools.harness.rendered import Look

_SEED = 20261127
_NAMES = (
    *("Café Müller", "Crêperie Léa", "Øresund Brygge", "Łódź Główna", "São João"),
    *("Señora Núñez", "Älvsjö Gård", "Château Rosé", "Čeština Žižkov", "Größe Straße"),
    *("Århus Færge", "İzmir Çarşı", "Déjà Brûlée", "Zürich Höhe", "Niño Jalapeño"),
    *("Mañana Jardín", "Pâté Forêt", "Über Käse", "Żubrówka Góra", "Piñata Corazón"),
)


@dataclass(frozen=True, slots=True)
class Paper:
    """The text of one made-up picture, and what is known of it. Facts that a paper does not have are None."""

    lines: tuple[str, ...]
    amount: str | None = None
    """Digits, with a point and decimals where there are some."""
    date: tuple[int, int, int] | None = None
    telephone: str | None = None
    number: str | None = None
    mail: str | None = None
    name: str | None = None

    def jpeg(self) -> bytes:
        """Render the picture: 1080 pixels wide, as high as its text; JPEG at quality 70."""
        size = (1080, max(480, 160 + round(len(self.lines) * 40 * 1.6)))
        return rendered.jpeg(rendered.page(self.lines, size=size, look=Look(40, line_pitch=1.6), margin=90), quality=70)


def papers() -> list[Paper]:
    """Return all of them: 40 bills, 30 notices, 20 signs."""
    random = Random(_SEED)
    bills = [_bill(random, number) for number in range(40)]
    return [*bills, *(_notice(random, number) for number in range(30)), *map(_sign, _NAMES)]


def _bill(random: Random, number: int) -> Paper:
    shop = random.choice(phrases.SHOPS)[number % 2]
    whole, decimals = random.randint(1001, 98_999), random.choice(("00", "50", "85"))
    amount = f"{whole}" if decimals == "00" else f"{whole}.{decimals}"
    printed = (f"¥{whole:,}.{decimals}", f"${whole:,}.{decimals}", f"{whole:,}.{decimals} 元")[number % 3]
    year, month, day = random.randint(2015, 2025), random.randint(1, 12), random.randint(13, 28)
    date = (f"{year}年{month:02}月{day:02}日", f"{year}-{month:02}-{day:02}", f"{day}/{month:02}/{year}")[number % 3]
    telephone = f"1{random.randint(30, 89)}{random.randint(0, 99_999_999):08}"
    groups = (telephone[:3], telephone[3:7], telephone[7:])
    account = "".join(str(random.randint(0, 9)) for _ in range(16))
    parts = [account[at : at + 4] for at in range(0, 16, 4)]
    mail = f"{random.choice(phrases.PEOPLE)[1].split()[-1].lower()}{number}@example.com"
    lines = (
        shop,
        f"合计 {printed}" if number % 2 else f"Total {printed}",
        date,
        f"电话 {(' ', '-')[number % 2].join(groups)}",
        f"No. {('-', ' ')[number % 2].join(parts)}",
        mail,
    )
    return Paper(lines, amount, (year, month, day), telephone, account, mail)


def _notice(random: Random, number: int) -> Paper:
    chosen = random.sample(phrases.MESSAGES, 3)
    if number % 3 == 2:
        text = ". ".join(english for _, english in chosen)
        return Paper(tuple(_hyphenated(text)))
    text = "，".join(chinese for chinese, _ in chosen) + "。"
    if number % 3 == 1:
        text = opencc.OpenCC("s2t").convert(text)
    width = random.randint(8, 12)
    return Paper(tuple(text[at : at + width] for at in range(0, len(text), width)))


def _hyphenated(text: str) -> list[str]:
    """Return ``text`` in lines of 26 letters; words of six and more are broken by a hyphen where they do not fit."""
    lines, line = [], ""
    for word in text.split():
        room = 26 - len(line) - 1
        if line and len(word) > room:
            if word.isalpha() and len(word) >= 6 and room >= 5:
                line += f" {word[: min(room - 1, len(word) - 2)]}-"
                word = word[min(room - 1, len(word) - 2) :]
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def _sign(name: str) -> Paper:
    return Paper((name, *textwrap.wrap("open every day of the week", 30)), name=name)
