"""Lines of text for the pictures, made of word lists: the same on every run, and in no model's training data."""

from __future__ import annotations

from random import Random

_PLACES = [
    "车间",
    "仓库",
    "会议室",
    "图书馆",
    "实验楼",
    "大厅",
    "码头",
    "果园",
    "食堂",
    "机房",
    "操场",
    "诊所",
    "书店",
    "车站",
    "花园",
    "邮局",
]
_THINGS = [
    "记录表",
    "通知",
    "清单",
    "合同",
    "说明书",
    "计划",
    "报告",
    "发票",
    "样品",
    "钥匙",
    "电池",
    "雨伞",
    "地图",
    "眼镜",
    "电脑",
    "茶叶",
]
_ACTS = [
    "请于周五前提交",
    "已经检查完毕",
    "需要重新登记",
    "暂时停止使用",
    "由专人负责保管",
    "按顺序领取",
    "不得带出",
    "每月更新一次",
]
_PEOPLE = ["王建国", "李小红", "张伟", "陈静", "刘洋", "赵敏", "孙悦", "周明"]
_ENGLISH = [
    "garden",
    "window",
    "market",
    "silver",
    "engine",
    "harbour",
    "letter",
    "summer",
    "bridge",
    "carpet",
    "pepper",
    "signal",
    "travel",
    "winter",
]
_TRADITIONAL = [
    "請於週五前提交報告",
    "圖書館借閱須知",
    "機場接駁車時刻表",
    "歡迎光臨台灣夜市",
    "電話號碼與聯絡地址",
    "會議紀錄與簽到表",
    "貴重物品請隨身攜帶",
    "開放時間上午九點起",
    "雙層蛋糕與鮮奶茶",
    "請勿餵食動物園區",
    "當歸藥燉排骨麵線",
    "龍鳳呈祥萬壽無疆",
]
_DISHES = [
    "宫保鸡丁",
    "麻婆豆腐",
    "清蒸鲈鱼",
    "红烧牛肉面",
    "扬州炒饭",
    "酸辣土豆丝",
    "小笼包",
    "珍珠奶茶",
    "蛋花汤",
    "糖醋排骨",
]


def line(random: Random) -> str:
    """Return a line of Chinese, of English, or of both with figures."""
    chinese = random.choice(_PLACES) + random.choice(_THINGS) + random.choice(_ACTS)
    number = f"{random.choice('ABCDEFGH')}{random.randint(10, 99)}-{random.randint(1000, 9999)}"
    english = " ".join(random.sample(_ENGLISH, random.randint(2, 4)))
    return random.choice(
        [
            chinese,
            chinese,
            english.capitalize(),
            f"{random.choice(_PEOPLE)} {random.choice(_ENGLISH).capitalize()} {random.randint(100, 9999)}",
            f"{random.choice(_THINGS)}编号 {number}",
        ]
    )


def mixed(random: Random) -> str:
    """Return a line of Chinese with figures or English in it, with a blank at some of the borders between them."""
    place, thing, dish = random.choice(_PLACES), random.choice(_THINGS), random.choice(_DISHES)
    phone = f"13{random.randint(100_000_000, 999_999_999)}"
    parts = random.choice(
        [
            [dish, str(random.randint(8, 199)), "元"],
            ["第", str(random.randint(1, 120)), "页共", str(random.randint(121, 300)), "页"],
            [place, str(random.randint(1, 40)), "号", thing, str(random.randint(2, 90)), "份"],
            [thing, random.choice(_ENGLISH).capitalize(), random.choice(_ACTS)],
            [random.choice(_PEOPLE), phone, place],
            [str(random.randint(1, 12)), "月", str(random.randint(1, 28)), "日", place, thing],
            [f"{random.choice('ABCDEFGH')}{random.randint(10, 99)}", thing, random.choice(_ACTS)],
            [random.choice(_ENGLISH).upper(), place, random.choice(_ENGLISH), thing],
        ]
    )
    return parts[0] + "".join(random.choice(("", " ")) + part for part in parts[1:])


def chinese(random: Random, *, length: int) -> str:
    """Return ``length`` Chinese characters."""
    text = ""
    while len(text) < length:
        text += random.choice(_PLACES) + random.choice(_THINGS) + random.choice(_ACTS)
    return text[:length]


def traditional(random: Random) -> str:
    """Return a line of traditional Chinese."""
    return random.choice(_TRADITIONAL)


def receipt(random: Random) -> list[tuple[str, str]]:
    """Return dishes with their prices, and the sum."""
    dishes = random.sample(_DISHES, random.randint(4, 7))
    prices = [random.randint(600, 9900) for _ in dishes]
    rows = [(dish, f"{price / 100:.2f}") for dish, price in zip(dishes, prices, strict=True)]
    return [*rows, ("合计", f"¥{sum(prices) / 100:.2f}")]


def cell(random: Random) -> str:
    """Return a figure of a table."""
    return str(random.randint(10_000, 99_999))
