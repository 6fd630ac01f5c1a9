"""Text of every kind a policy may write: code, maths, scripts, emoji, combining marks, control characters, line ends,
indentation."""

from __future__ import annotations

import random

SCRIPTS = {
    "Latin": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Cyrillic": "Съешь ещё этих мягких французских булок",
    "Armenian": "Բել դղյակի ձախ ժամն օֆ ազգությանը",
    "Georgian": "ვეპხის ტყაოსანი შოთა რუსთაველი",
    "Hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم",
    "Devanagari": "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा",
    "Bengali": "আমার সোনার বাংলা আমি তোমায় ভালোবাসি",
    "Tamil": "யாமறிந்த மொழிகளிலே தமிழ்மொழி போல்",
    "Telugu": "తెలుగు భాష తియ్యదనం",
    "Kannada": "ಕನ್ನಡ ನಾಡು ನುಡಿ",
    "Malayalam": "മലയാളം എന്റെ ഭാഷ",
    "Sinhala": "සිංහල අකුරු",
    "Thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "Lao": "ພາສາລາວແມ່ນ",
    "Khmer": "ភាសាខ្មែរគឺជា",
    "Burmese": "မြန်မာဘာသာစကား",
    "Tibetan": "བོད་སྐད་ཡིག",
    "Ethiopic": "ሰማይ አይታረስ ንጉሥ አይከሰስ",
    "Chinese": "天地玄黃宇宙洪荒，日月盈昃辰宿列張。",
    "Japanese": "いろはにほへとちりぬるを、カタカナ漢字",
    "Korean": "키스의 고유조건은 입술끼리 만나야 하고",
    "Cherokee": "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
    "Mongolian": "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ",
    "Gothic": "𐌼𐌰𐌲 𐌲𐌻𐌴𐍃 𐌹̈𐍄𐌰𐌽",
}
CODE = (
    "def fib(n: int) -> int:\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    'if (x != null && y >= 0x1F) {\n\t\tprintf("%5.2f\\n", x->y[i++]);\n}\r\n',
    "SELECT u.id, COUNT(*) FROM users u WHERE u.name LIKE '%_x' GROUP BY 1;",
    "<div class=\"a\"><p>&nbsp;</p></div>\n<!-- -->",
    "\n" + " " * 37 + "return self._inner[key]\n" + " " * 8 + "\n\n\n",
)  # fmt: skip
MATHS = (
    r"\frac{-b \pm \sqrt{b^2-4ac}}{2a} \approx 3.14159265",
    "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−L|<ε, ∑ᵢ xᵢ² ≤ ‖x‖₂ ∫₀¹ ℝ→ℂ",
    "Step 1: 17 + 25 = 42, so 42 * 1,000,000 = 42000000. #### 42",
)
ODD = (
    "👩‍👩‍👧‍👦🏳️‍🌈🇨🇭👍🏿❤️‍🔥1️⃣",
    "e\u0301 o\u0308 A\u030a \u1e9b\u0323 q\u0307\u0323 \u0915\u094d\u0937 \u1112\u1161\u11ab",
    "Z\u0351\u036b\u0343\u036aa\u0341l\u0340g\u0321o\u0358",
    "\x00\x01\x02\x07\x08\x0b\x0c\x0e\x1b[31m\x7f\x80\x9f\xa0\xad",
    "a\r\nb\rc\n\r\n\r\n\td\u2028e\u2029f\x85g",
    "\t\t\tx\t y  \u00a0\u2003\u3000z   ",
    "\ufeff\u200b\u200c\u200d\u2060\ufffd\uffff\U0010ffff",
    "ﬁ Å Ω ½ ① ㌀ Ⅷ ǆ ſ ﷺ",
    "▁▁ ▁x Ġthe Ċ <0x0A> <0xFF> ##ing",
    "I'm you'RE it'S we'Ll",
)
CONTROLS = (
    "<|im_start|>system\n", "<|im_end|>", "</s>", "<s>", "[INST]", "[/INST]", "<|eot_id|>", "<|begin_of_text|>",
    "<eos>", "<bos>", "<|endoftext|>", "<start_of_turn>", "<end_of_turn>", "<think>", "</think>", "<tool_call>",
    "<unk>", "<pad>", "<unused7>", "<｜end▁of▁sentence｜>", "<|eot|>", "[TOOL_CALLS]", "<|python_tag|>",
    "<|header_start|>", "<SPECIAL_999>", "<0x41>", "[REF]",
)  # fmt: skip
FRAGMENTS = (*SCRIPTS.values(), *CODE, *MATHS, *ODD)


def random_text(rng: random.Random, fragments: int = 3) -> str:
    """A few slices of the corpus, spellings of control tokens and random characters, joined without regard for
    sense."""
    parts = []
    for _ in range(rng.randint(0, fragments)):
        kind = rng.random()
        if kind < 0.7:
            whole = rng.choice(FRAGMENTS)
            start = rng.randrange(len(whole))
            parts.append(whole[start : start + rng.randint(1, 24)])
        elif kind < 0.85:
            parts.append(rng.choice(CONTROLS))
        else:
            parts.append("".join(_random_char(rng) for _ in range(rng.randint(1, 5))))
    return rng.choice(("", " ", "\n")).join(parts)


def _random_char(rng: random.Random) -> str:
    point = rng.randrange(rng.choice((0x80, 0x800, 0x10000, 0x110000)))
    return chr(point) if not 0xD800 <= point < 0xE000 else " "
