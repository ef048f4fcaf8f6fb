"""Finds the arithmetic steps in an answer, such as `3 x 12 = 36`, and checks them.

Usage: `wrong, total = wrong_steps("3 * 12 = 36, and 36 + 5 = 42")` gives (1, 2).

Values are exact fractions, so that 0.1 + 0.2 = 0.3 holds. A result with d decimals may be rounded to d decimals.
Nothing is executed: the text is parsed and its syntax tree is evaluated.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SIGN = r"[-+*/x\u00d7\u00f7\u2212]"  # with the printed signs for times, divided by, and minus
_STEP = re.compile(
    rf"(?<![\w.,/*+\-])(?P<left>[($]*-?(?:{_NUMBER})\)*(?:\s*{_SIGN}\s*[($]*(?:{_NUMBER})\)*)+)"
    rf"\s*=\s*\$?(?P<right>-?(?:{_NUMBER}))(?![\d%])"
)
_TO_PYTHON = str.maketrans({"\u00d7": "*", "x": "*", "\u00f7": "/", "\u2212": "-", ",": None, "$": None})
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def wrong_steps(text: str) -> tuple[int, int]:
    """Return (wrong, all) of the steps `<numbers and signs> = <number>`; a chain has one step per equals sign."""
    wrong = total = 0
    position = 0
    while found := _STEP.search(text, position):
        position = max(found.end() - len(found["right"]), found.start() + 1)  # a chain continues from its result
        try:
            value = _value(ast.parse(found["left"].translate(_TO_PYTHON).strip(), mode="eval").body)
        except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
            continue  # unbalanced brackets, 007, a division by zero, thousands of numbers
        total += 1
        wrong += not _equals(value, found["right"].replace(",", ""))
    return wrong, total


def _equals(value: Fraction, written: str) -> bool:
    decimals = len(written.partition(".")[2])
    rounding = Fraction(1, 2 * 10**decimals) if decimals else Fraction(0)
    return abs(value - Fraction(written)) <= rounding


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    raise ValueError(f"{type(node).__name__} is not part of an expression")
