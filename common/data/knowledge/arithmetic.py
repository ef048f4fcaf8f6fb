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
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class NotWhole(Exception):
    """A division leaves a remainder or divides by zero: these numbers do not suit the expression."""


class Expression:
    """A parsed expression; `names` are the variables that it reads."""

    def __init__(self, text: str) -> None:
        """Parse `text`. Raises DataError for what is no expression of whole numbers."""
        self.text = text
        try:
            self._tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise DataError(f"'{text}' is no arithmetic expression ({error.msg})") from error
        self.names = frozenset(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name))
        self._check(self._tree)

    def value(self, numbers: Mapping[str, int]) -> int:
        """Return the value; a condition gives 0 or 1. Raises NotWhole where `/` is not exact."""
        return int(self._value(self._tree, numbers))

    def _check(self, node: ast.AST) -> None:
        allowed = (ast.Name, ast.BoolOp, ast.boolop, ast.Load, ast.operator, ast.unaryop, ast.cmpop)
        if isinstance(node, ast.Constant):
            fine = isinstance(node.value, int) and not isinstance(node.value, bool)
        elif isinstance(node, ast.BinOp):
            fine = type(node.op) in _BINARY or isinstance(node.op, ast.Div | ast.Pow)
        elif isinstance(node, ast.UnaryOp):
            fine = isinstance(node.op, ast.USub | ast.Not)
        elif isinstance(node, ast.Compare):
            fine = all(type(op) in _COMPARE for op in node.ops)
        else:
            fine = isinstance(node, allowed)
        if not fine:
            part = ast.get_source_segment(self.text, node) if isinstance(node, ast.expr) else type(node).__name__
            raise DataError(
                f"'{self.text}': {part} is not allowed; expected whole numbers, names, + - * / // % **, comparisons, "
                "and, or, not"
            )
        for child in ast.iter_child_nodes(node):
            self._check(child)

    def _value(self, node: ast.AST, numbers: Mapping[str, int]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return numbers[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._value(operand, numbers)
            case ast.UnaryOp(operand=operand):
                return not self._value(operand, numbers)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._value(value, numbers) for value in values)
            case ast.BoolOp(values=values):
                return any(self._value(value, numbers) for value in values)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [self._value(side, numbers) for side in (left, *comparators)]
                pairs = zip(ops, itertools.pairwise(sides), strict=True)
                return all(_COMPARE[type(op)](first, second) for op, (first, second) in pairs)
            case ast.BinOp(left=left, op=op, right=right):
                return _binary(op, self._value(left, numbers), self._value(right, numbers))
        raise AssertionError(f"unchecked node {node}")


def _binary(op: ast.operator, left: int, right: int) -> int:
    if isinstance(op, ast.Pow):
        if not 0 <= right <= LARGEST_EXPONENT:
            raise NotWhole
        return int(left**right)
    if isinstance(op, ast.Div | ast.FloorDiv | ast.Mod) and right == 0:
        raise NotWhole
    if isinstance(op, ast.Div):
        if left % right:
            raise NotWhole
        return left // right
    return _BINARY[type(op)](left, right)
