"""Compile user code under the policy: refuse what leads to the interpreter, guard a few names, leave the rest."""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import CodeType
from typing import Any, Literal, TypeVar

from RestrictedPython.transformer import RestrictingNodeTransformer

from .names import DENIED, FORMATS, GUARDED, denial, is_dunder, needs_guard
from .text_fields import check_fields

GUARD = "_getattr_"

# Kinds of nodes that the base class would rewrite or refuse.
_KINDS = """
    Module Constant Call Subscript ListComp SetComp GeneratorExp DictComp comprehension For With Assign AugAssign
    AnnAssign NamedExpr Nonlocal ExceptHandler TryStar FunctionDef AsyncFunctionDef Lambda ClassDef Import ImportFrom
    Await AsyncFor AsyncWith Match match_case MatchValue MatchSingleton MatchSequence MatchMapping MatchStar MatchAs
    MatchOr TypeAlias TypeVar ParamSpec TypeVarTuple
"""
_ADMITTED = frozenset(_KINDS.split())

_Tree = TypeVar("_Tree", bound=ast.AST)
Mode = Literal["exec", "eval", "single"]


class RestrictedError(SyntaxError):
    """Code that the policy does not admit. Its place is set as that of any SyntaxError."""

    __module__ = "builtins"  # shown to the code's author by its plain name


class _Transformer(RestrictingNodeTransformer):
    """Admits almost every statement; kinds of nodes that neither it nor its base knows are refused.

    Each node is judged without its children: `rewrite` walks the tree, in a loop, because a sum
    of a thousand terms is a thousand levels deep.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, int, int, str]] = []  # line, start and end in bytes, message
        self._guards: set[int] = set()  # identities of the names that we put in
        self._judges: dict[str, Callable[[Any], ast.AST]] = {
            "Attribute": self._attribute,
            "MatchClass": self._match_class,
            "Name": self._name,
        }

    @property
    def guarded(self) -> bool:
        """Whether a guard was put in place."""
        return bool(self._guards)

    def rewrite(self, tree: ast.AST) -> None:
        """Judge all of `tree`, putting guards in place; what is refused is in `found` afterwards."""
        pending = [tree]
        while pending:
            parent = pending.pop()
            for field in parent._fields:
                value = getattr(parent, field, None)
                if isinstance(value, list):
                    for index, child in enumerate(value):
                        if isinstance(child, ast.AST) and child._fields:
                            value[index] = judged = self.visit(child)
                            pending.append(judged)
                elif isinstance(value, ast.AST) and value._fields:  # not an operator, a context or `pass`
                    judged = self.visit(value)
                    if judged is not value:
                        setattr(parent, field, judged)
                    pending.append(judged)

    def visit(self, node: ast.AST) -> ast.AST:
        """The node itself, admitted or refused, or what stands in its place."""
        kind = type(node).__name__
        if kind in _ADMITTED:
            return node
        if kind in self._judges:
            return self._judges[kind](node)
        judged: ast.AST = super().visit(node)
        return judged

    def error(self, node: ast.AST, info: str) -> None:
        """Record that `node` is refused."""
        start = getattr(node, "col_offset", 0)
        self.found.append((getattr(node, "lineno", 1), start, getattr(node, "end_col_offset", start + 1), info))

    def node_contents_visit(self, node: _Tree) -> _Tree:
        """Nothing: the children's turn comes in `rewrite`."""
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Refuse a kind of node that is not known, such as one that a later Python adds."""
        self.error(node, f"{type(node).__name__} is not supported")
        return node

    def _name(self, node: ast.Name) -> ast.AST:
        """Keep the guard's own name and the table of builtins out of reach."""
        if node.id in ("__builtins__", GUARD) and id(node) not in self._guards:
            self.error(node, f"the name {node.id!r} is reserved")
        return node

    def _match_class(self, node: ast.AST) -> ast.AST:
        """A class pattern reads attributes by name."""
        for name in getattr(node, "kwd_attrs", ()):
            if name in DENIED or (name in GUARDED and is_dunder(name)):
                self.error(node, denial(name))
        return node

    def _attribute(self, node: ast.Attribute) -> ast.AST:
        """Refuse a denied name; guard a load that needs it."""
        if node.attr in DENIED:
            self._refuse_attribute(node, node.attr)
            return node
        if not isinstance(node.ctx, ast.Load) or not needs_guard(node.attr):
            return node
        if node.attr in FORMATS and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            if refused := check_fields(node.value.value):
                self._refuse_attribute(node, refused)
            return node
        return self._guarded(node)

    def _refuse_attribute(self, node: ast.Attribute, name: str) -> None:
        end = node.end_col_offset or 0
        place = ast.Attribute(node.value, node.attr, node.ctx)
        place.lineno = node.end_lineno or node.lineno
        place.col_offset, place.end_col_offset = max(end - len(node.attr.encode()), 0), end
        self.error(place, denial(name))

    def _guarded(self, node: ast.Attribute) -> ast.AST:
        guard = ast.Name(GUARD, ast.Load())
        self._guards.add(id(guard))
        call = ast.Call(guard, [node.value, ast.Constant(node.attr)], [])
        for new in (guard, call, call.args[1]):
            ast.copy_location(new, node)
        return call


def restricted_tree(source: str | bytes, filename: str, mode: Mode = "exec") -> Any:
    """Parse `source` and put the policy's guards into its tree.

    Raises:
        SyntaxError: it is not Python.
        RestrictedError: the policy does not admit it; the message starts with the line.
    """
    return _restrict(source, filename, mode)[0]


def _restrict(source: str | bytes, filename: str, mode: Mode) -> tuple[Any, bool]:
    """The tree of `restricted_tree`, and whether there are guards in it."""
    tree = compile(source, filename, mode, ast.PyCF_ONLY_AST, dont_inherit=True)
    transformer = _Transformer()
    transformer.rewrite(tree)
    if transformer.found:
        raise _refusal(min(transformer.found), source, filename)
    return tree, transformer.guarded


def compile_restricted(source: str | bytes, filename: str, mode: Mode) -> CodeType:
    """`compile` under the policy; raises as `restricted_tree` does."""
    tree, guarded = _restrict(source, filename, mode)
    try:
        code: CodeType = compile(tree, filename, mode, dont_inherit=True)
    except RecursionError:  # a source may be nested three times as deep as a tree
        if guarded:
            raise
        code = compile(source, filename, mode, dont_inherit=True)
    return code


def split_restricted(code: str, filename: str) -> tuple[CodeType, CodeType | None]:
    """Compile `code` as everything up to a final expression statement, and that expression (or None)."""
    tree = restricted_tree(code, filename)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        expression = ast.Expression(tree.body.pop().value)
        last = compile(expression, filename, "eval", dont_inherit=True)
    return compile(tree, filename, "exec", dont_inherit=True), last


def _refusal(found: tuple[int, int, int, str], source: str | bytes, filename: str) -> RestrictedError:
    number, start, end, message = found
    text = source if isinstance(source, str) else source.decode("utf-8", "replace")
    lines = text.split("\n")
    line = lines[number - 1] if number <= len(lines) else ""
    columns = [len(line.encode()[:place].decode("utf-8", "ignore")) + 1 for place in (start, end)]
    details = (filename, number, columns[0], line, number, columns[1])
    return RestrictedError(f"line {number}: {message}", details)
