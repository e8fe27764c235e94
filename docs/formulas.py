"""Formulas in plain characters, as docstrings write them, into MathML, which browsers draw without a program.

>>> mathml("√(1 − α_t²)").count("msqrt")
2
"""

from __future__ import annotations

import re
from html import escape

MARKS = re.compile(r"[√‖∇∂∑∏∫−·²³≤≥≈α-ωΔΣΦ]|[A-Za-z]_[a-z]\)")
"""What stands in formulas and in no code."""
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀ", "0123456789+−T", strict=True))
TOKEN = re.compile(
    rf"(?P<space>\s+)|(?P<raised>[{''.join(RAISED)}]+)|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>(?:[a-zA-Z]+|[^\W\d_a-zA-Z])[\u0300-\u036f]*)|(?P<sign>.)"
)
GAP = '<mspace width="0.17em"/>'
CLOSE = {"(": ")", "[": "]", "{": "}"}


class Formula:
    """Reads a formula from left to right."""

    def __init__(self, text: str) -> None:
        found = [(match.lastgroup or "", match[0]) for match in TOKEN.finditer(text)]
        self.tokens = [token for token in found if token[0] != "space"]

    def peek(self) -> str:
        """What comes next; nothing at the end."""
        return self.tokens[0][1] if self.tokens else ""

    def row(self, end: str = "") -> str:
        """Everything up to a closing bracket, which stays."""
        parts = []
        while self.tokens and self.peek() != end:
            kind, text = self.tokens[0]
            word = kind == "name" and len(text) > 1 and text.isascii()
            parts.append(f"{GAP if word else ''}{self.scripted()}{GAP if word else ''}")
        return f"<mrow>{''.join(parts)}</mrow>"

    def scripted(self) -> str:
        """One thing with what stands below and above it."""
        base, name = self.atom()
        below = self.digits() if name else ""
        below += self.script() if self.peek() == "_" else ""
        above = ""
        while self.peek() in ("^", "'", "′") or (self.tokens and self.tokens[0][0] == "raised"):
            above += self.above()
        if below and above:
            return f"<msubsup>{base}<mrow>{below}</mrow><mrow>{above}</mrow></msubsup>"
        if below:
            return f"<msub>{base}<mrow>{below}</mrow></msub>"
        return f"<msup>{base}<mrow>{above}</mrow></msup>" if above else base

    def atom(self) -> tuple[str, bool]:
        """A name, a number, a sign, a root or a bracket, and whether it is a name."""
        kind, text = self.tokens.pop(0)
        if text == "√":
            return f"<msqrt>{self.bracket(False) if self.peek() == '(' else self.scripted()}</msqrt>", False
        if text in CLOSE:
            self.tokens.insert(0, (kind, text))
            return self.bracket(True), False
        tag = {"name": "mi", "number": "mn"}.get(kind, "mo")
        return f"<{tag}>{escape(text)}</{tag}>", kind == "name"

    def bracket(self, shown: bool) -> str:
        """What stands between brackets, with them or without."""
        _, opening = self.tokens.pop(0)
        inner = self.row(CLOSE[opening])
        _, closing = self.tokens.pop(0) if self.tokens else ("", "")
        return f"<mrow><mo>{opening}</mo>{inner}<mo>{closing}</mo></mrow>" if shown else inner

    def script(self) -> str:
        """What an underscore puts below."""
        self.tokens.pop(0)
        return self.bracket(False) if self.peek() in ("{", "(") else self.word()

    def word(self) -> str:
        """A name and the digits after it."""
        base, name = self.atom()
        return f"<mrow>{base}{self.digits() if name else ''}</mrow>"

    def digits(self) -> str:
        """The number right after a name: the 0 of x0."""
        return f"<mn>{self.tokens.pop(0)[1]}</mn>" if self.tokens and self.tokens[0][0] == "number" else ""

    def above(self) -> str:
        """What a caret, a prime or raised characters put above."""
        kind, text = self.tokens.pop(0)
        if text == "^":
            sign = f"<mo>{self.tokens.pop(0)[1]}</mo>" if self.peek() == "−" else ""
            return sign + self.atom()[0]
        return f"<mo>{'′' if text == chr(39) else ''.join(RAISED.get(each, each) for each in text)}</mo>"


def mathml(text: str) -> str:
    """A formula as a MathML element."""
    return f"<math>{Formula(text).row()}</math>"
