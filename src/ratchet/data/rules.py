"""Which rows keep a rule across columns?"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from ratchet.contract import Column, Contract, Rule
from ratchet.errors import ContractError

# What a rule may be made of: comparisons, arithmetic, and, or, not, in.
KNOWN = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd, ast.BinOp, ast.Add, ast.Sub, ast.Mult,
    ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Name,
    ast.Load, ast.Constant, ast.List, ast.Tuple,
)  # fmt: skip
OPERATORS = {
    ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal", ast.Eq: "equal", ast.NotEq: "not_equal",
}  # fmt: skip


def keeps(columns: Mapping[str, Any] | pd.DataFrame, rule: Rule, contract: Contract) -> np.ndarray:
    """Whether each of n rows keeps the rule, shape (n,), bool. A rule about a value that is missing is not broken by it.

    `columns` holds the rows column by column: a frame, or lists by name. The same code judges a batch and a request.
    ContractError where the expression cannot be evaluated.
    """
    code, names = _compiled(rule.expression, rule.name, contract.name)
    if unknown := names - {column.name for column in contract.columns}:
        raise _wrong(contract.name, rule.name, f"there is no column {min(unknown)!r}")
    values = {name: _array(columns[name], contract.column(name)) for name in names}
    rows = len(next(iter(values.values())))
    there = np.ones(rows, dtype=bool)
    for array in values.values():
        there &= ~(np.isnan(array) if array.dtype.kind == "f" else pd.isna(array))
    holds = np.ones(rows, dtype=bool)
    try:
        # Only rows in which nothing is missing are judged.
        holds[there] = eval(code, {"__builtins__": {}, "<np>": np, "<compare>": _compare}, {name: a[there] for name, a in values.items()})
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise _wrong(contract.name, rule.name, str(error)) from error
    return holds


def used(rule: Rule, contract: Contract) -> frozenset[str]:
    """The columns that a rule is about. ContractError where its expression is wrong."""
    return _compiled(rule.expression, rule.name, contract.name)[1]


@lru_cache(maxsize=256)
def _compiled(expression: str, rule: str, contract: str) -> tuple[Any, frozenset[str]]:
    """The expression for arrays, and the columns that it names."""
    try:
        tree = ast.parse(_words(expression), mode="eval")
    except (SyntaxError, tokenize.TokenError) as error:
        raise _wrong(contract, rule, str(error)) from error
    for node in ast.walk(tree):
        if not isinstance(node, KNOWN):
            raise _wrong(contract, rule, f"{type(node).__name__} is not known; use comparisons, arithmetic, and, or, not, in")
    names = frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    if not names:
        raise _wrong(contract, rule, "it is about no column")
    made = ast.fix_missing_locations(_ForArrays().visit(tree))
    return compile(made, f"rule {rule}", "eval"), names


def _words(expression: str) -> str:
    """As in pandas' expressions, & and | bind as loosely as `and` and `or`."""
    words = {"&": "and", "|": "or", "~": "not"}
    tokens = tokenize.generate_tokens(io.StringIO(expression.strip()).readline)
    return " ".join(words.get(token.string, token.string) for token in tokens).strip()


class _ForArrays(ast.NodeTransformer):
    """Words about one value become functions of arrays."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        name = "logical_and" if isinstance(node.op, ast.And) else "logical_or"
        made = node.values[0]
        for value in node.values[1:]:
            made = _call(_numpy(name), made, value)
        return made

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        self.generic_visit(node)
        return _call(_numpy("logical_not"), node.operand) if isinstance(node.op, ast.Not | ast.Invert) else node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        self.generic_visit(node)
        sides = [node.left, *node.comparators]
        made: ast.expr | None = None
        for operator, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if isinstance(operator, ast.In | ast.NotIn):
                one: ast.expr = _call(_numpy("isin"), left, right)
                one = _call(_numpy("logical_not"), one) if isinstance(operator, ast.NotIn) else one
            else:
                one = _call(ast.Name("<compare>", ast.Load()), ast.Constant(OPERATORS[type(operator)]), left, right)
            made = one if made is None else _call(_numpy("logical_and"), made, one)
        assert made is not None
        return made


def _numpy(name: str) -> ast.expr:
    return ast.Attribute(ast.Name("<np>", ast.Load()), name, ast.Load())


def _call(function: ast.expr, *arguments: ast.expr) -> ast.expr:
    return ast.Call(function, list(arguments), [])


def _compare(operator: str, left: Any, right: Any) -> Any:
    """Compare arrays; a moment may be written as text."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, np.ndarray) and one.dtype.kind == "M" and isinstance(other, str):
            left, right = (np.datetime64(side) if side is other else side for side in (left, right))
    return getattr(np, operator)(left, right)


def _array(values: Any, column: Column) -> np.ndarray:
    if column.is_numeric and column.role != "time":
        return np.asarray(values, dtype=np.float64)
    array = np.asarray(values)
    return array if array.dtype.kind == "M" else np.asarray(values, dtype=object)


def _wrong(contract: str, rule: str, why: str) -> ContractError:
    return ContractError(f"contract {contract}: rule {rule!r} cannot be evaluated: {why}.")
