r"""Matrices of LaTeX, and sums and products of them, down to the texts of their entries."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAX_ROWS = 16
_MAX_TERMS = 8
_MAX_ENTRY = 300
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[lcr| ]*\})?(.*?)\\end\{\1\}", re.DOTALL)
_TIMES = re.compile(r"\\cdot(?![A-Za-z])|\\times(?![A-Za-z])|\*")
_DELIMITERS = {"(": ")", "[": "]", "|": "|"}


@dataclass(frozen=True)
class Entries:
    """The texts of a matrix's entries, by rows; `determinant` where it stands between bars."""

    rows: tuple[tuple[str, ...], ...]
    determinant: bool = False


def read_matrix(text: str) -> Entries | None:
    r"""One matrix, or a sum or product of matrices and scalars, worked out; None if `text` is neither.

    At most 16 rows, 16 columns and 8 terms or factors.
    """
    if r"\begin{" not in text:
        return None
    total: Entries | None = None
    for sign, term in _terms(text):
        value = _product(term)
        if value is None:
            return None
        if sign == "-":
            value = _scaled(value, "-1")
        if value is not None and total is not None:
            value = _added(total, value)
        if value is None:
            return None
        total = value
    return total


def _terms(text: str) -> list[tuple[str, str]]:
    """The terms of a sum with their signs; what stands inside brackets or environments is not split."""
    terms: list[tuple[str, str]] = []
    sign, depth, start, at = "+", 0, 0, 0
    while at < len(text):
        if text.startswith(r"\begin{", at):
            depth += 1
        elif text.startswith(r"\end{", at):
            depth -= 1
        char = text[at]
        depth += (char in "([{") - (char in ")]}")
        if depth == 0 and char in "+-" and not _TIMES.search(text[start:at].rstrip()[-6:]):
            if text[start:at].strip():
                terms.append((sign, text[start:at].strip()))
            sign, start = char, at + 1
        at += 1
    terms.append((sign, text[start:].strip()))
    return terms if len(terms) <= _MAX_TERMS else []


def _product(text: str) -> Entries | None:
    """The product of scalars and matrices in the order written."""
    matrices: list[Entries] = []
    scalars: list[str] = []
    at = 0
    for match in _MATRIX.finditer(text):
        start, end, kind = match.start(), match.end(), match[1]
        before, after = text[start - 1 : start], text[end : end + 1]
        if start > at and before and _DELIMITERS.get(before) == after:
            start, end = start - 1, end + 1
        factor = _TIMES.sub(" ", text[at:start]).strip()
        if factor:
            scalars.append(factor)
        rows = _rows(match[2])
        if rows is None:
            return None
        bars = kind in ("vmatrix", "Vmatrix") or (before == after == "|" and start < match.start())
        matrices.append(Entries(rows, bars))
        at = end
    if not matrices or text[at:].strip() or len(matrices) + len(scalars) > _MAX_TERMS:
        return None
    product: Entries | None = matrices[0]
    for other in matrices[1:]:
        product = product and _multiplied(product, other)
    for scalar in scalars:
        product = product and _scaled(product, scalar)
    return product


def _rows(body: str) -> tuple[tuple[str, ...], ...] | None:
    if r"\begin" in body:
        return None
    rows = [row for row in body.replace(r"\hline", " ").split("\\\\") if row.strip()]
    if not 0 < len(rows) <= _MAX_ROWS:
        return None
    split = tuple(tuple(cell.strip() for cell in row.split("&")) for row in rows)
    return split if all(len(row) <= _MAX_ROWS for row in split) else None


def _checked(rows: tuple[tuple[str, ...], ...]) -> Entries | None:
    return Entries(rows) if all(len(cell) <= _MAX_ENTRY for row in rows for cell in row) else None


def _scaled(matrix: Entries, scalar: str) -> Entries | None:
    if matrix.determinant:
        return None
    return _checked(tuple(tuple(f"({scalar})({cell})" for cell in row) for row in matrix.rows))


def _added(a: Entries, b: Entries) -> Entries | None:
    if a.determinant or b.determinant or [len(row) for row in a.rows] != [len(row) for row in b.rows]:
        return None
    pairs = (zip(row, other, strict=True) for row, other in zip(a.rows, b.rows, strict=True))
    return _checked(tuple(tuple(f"({left})+({right})" for left, right in row) for row in pairs))


def _multiplied(a: Entries, b: Entries) -> Entries | None:
    inner = len(b.rows)
    width = len(b.rows[0])
    if a.determinant or b.determinant or any(len(row) != inner for row in a.rows):
        return None
    if any(len(row) != width for row in b.rows):
        return None
    columns = [[row[at] for row in b.rows] for at in range(width)]
    return _checked(
        tuple(
            tuple("+".join(f"({x})({y})" for x, y in zip(row, column, strict=True)) for column in columns)
            for row in a.rows
        )
    )
