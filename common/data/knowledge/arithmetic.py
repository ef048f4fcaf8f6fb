"""Evaluate whole-number expressions written in files, such as `a * b + c` or `a > b`, and nothing else.

Usage: `Expression("a * b").value({"a": 6, "b": 7})` returns 42.

It is no calculator for users: only whole numbers, names, + - * / // % **, comparisons, `and`, `or`, `not`. Nothing is
executed; the text is parsed and its tree is walked.
"""

from __future__ import annotations

import ast
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from common.errors import DataError

LARGEST_EXPONENT = 12  # 99**99 in a file should be an error, not a wait


class NotWhole(Exception):
    """A division leaves a remainder or divides by zero: these numbers do not suit the expression."""


def _divide(left: int, right: int) -> int:
    if left % right:
        raise NotWhole
    return left // right


def _power(left: int, right: int) -> int:
    if not 0 <= right <= LARGEST_EXPONENT:
        raise NotWhole
    return int(left**right)


_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Div: _divide,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.And: all,
    ast.Or: any,
}


class Expression:
    """A parsed expression; `names` are the variables that it reads."""

    def __init__(self, text: str) -> None:
        """Parse `text`. Raises DataError for what is no expression of whole numbers."""
        try:
            self._tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise DataError(f"'{text}' is no arithmetic expression ({error.msg})") from error
        for node in ast.walk(self._tree):
            if isinstance(node, ast.expr) and not _is_allowed(node):
                raise DataError(
                    f"'{text}': {ast.get_source_segment(text, node)} is not allowed; expected whole numbers, names, "
                    "+ - * / // % **, comparisons, and, or, not"
                )
        self.names = frozenset(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name))

    def value(self, numbers: Mapping[str, int]) -> int:
        """Return the value; a condition gives 0 or 1. Raises NotWhole where `/` is not exact."""
        try:
            return int(_value(self._tree, numbers))
        except ZeroDivisionError:
            raise NotWhole from None


def _is_allowed(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return type(value) is int
        case ast.BinOp(op=op) | ast.UnaryOp(op=op):
            return type(op) in _OPERATORS
        case ast.Compare(ops=ops):
            return all(type(op) in _OPERATORS for op in ops)
    return isinstance(node, ast.Name | ast.BoolOp)


def _value(node: ast.AST, numbers: Mapping[str, int]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return numbers[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _OPERATORS[type(op)](_value(operand, numbers))
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, numbers), _value(right, numbers))
        case ast.BoolOp(op=op, values=values):
            return _OPERATORS[type(op)](_value(value, numbers) for value in values)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            pairs = itertools.pairwise([_value(side, numbers) for side in (left, *comparators)])
            return all(_OPERATORS[type(op)](*pair) for op, pair in zip(ops, pairs, strict=True))
    raise AssertionError(f"unchecked node {node}")
