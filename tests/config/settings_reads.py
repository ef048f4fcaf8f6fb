"""Which fields of the settings classes the sources read, told by reading the sources alone.

Usage: `unread_settings(parse_sources(folder))`.

A read is an attribute access on a value whose class can be inferred: from annotations of parameters, fields, functions
and properties, from `isinstance`, and from assignments and loops. Containers count as what they hold. Two classes with
a field of one name are told apart. A dump of all fields (`model_dump`) is no read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

BASE = "Frozen"
Types = frozenset[str]
NOTHING: Types = frozenset()
PASSING_ON = {"values", "items", "get", "pop", "model_copy", "setdefault", "copy"}  # methods that return what they hold
PASSED = {"sorted", "list", "tuple", "dict", "reversed", "iter", "next", "enumerate", "zip", "cast", "set", "max", "min"}


@dataclass
class Class:
    """A class of the sources: its bases, its fields, and what its attributes and methods return."""

    bases: list[str]
    fields: list[str] = field(default_factory=list)
    returns: dict[str, ast.expr | None] = field(default_factory=dict)


class Sources:
    """All classes and functions of some modules, by name."""

    def __init__(self, trees: Mapping[str, ast.Module]) -> None:
        self.trees = trees
        self.classes: dict[str, Class] = {}
        self.functions: dict[str, ast.expr | None] = {}
        for tree in trees.values():
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    self.classes[node.name] = _class(node)
                elif isinstance(node, ast.FunctionDef):
                    self.functions[node.name] = node.returns
                elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self.functions.setdefault(node.targets[0].id, node.value)  # an alias of a type
        self.reads: set[tuple[str, str]] = set()
        for tree in trees.values():
            _Scope(self, {}).run(tree.body)

    def ancestors(self, name: str) -> list[str]:
        """Return a class and its bases, itself first."""
        if name not in self.classes:
            return []
        return [name, *(base for own in self.classes[name].bases for base in self.ancestors(own))]

    def descendants(self, name: str) -> list[str]:
        return [other for other in self.classes if name in self.ancestors(other)]

    def settings(self) -> list[str]:
        return [name for name in self.descendants(BASE) if name != BASE]

    def named_in(self, annotation: ast.AST | None) -> Types:
        """Return the classes that an annotation names, aliases of types resolved one level."""
        if annotation is None:
            return NOTHING
        names: set[str] = set()
        for node in ast.walk(annotation):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
                name = node.value
            names |= {name} & self.classes.keys() if name else set()
        return frozenset(names)

    def attribute(self, owners: Types, name: str) -> Types:
        """Note a read of an attribute and return the classes of its value."""
        found = NOTHING
        for owner in owners:
            holders = [c for c in self.ancestors(owner) if name in self.classes[c].returns]
            # A stage's settings are often known by a base class only, and the kind by another condition.
            holders = holders or [c for c in self.descendants(owner) if name in self.classes[c].returns]
            for holder in holders:
                self.reads.add((holder, name))
                found |= self.named_in(self.classes[holder].returns[name])
        return found


def parse_sources(folder: Path) -> Sources:
    """Read all modules below a folder."""
    paths = sorted(folder.rglob("*.py"))
    return Sources({str(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths})


def unread_settings(sources: Sources) -> list[str]:
    """Return `Class.field` for every field of a settings class that nothing reads.

    A read of a field counts for the class that declares it, and where a subclass declares it again, for both.
    """
    lines = []
    for name in sources.settings():
        family = {*sources.ancestors(name), *sources.descendants(name)}
        for key in sources.classes[name].fields:
            if not any((other, key) in sources.reads for other in family):
                lines.append(f"{name}.{key}")
    return lines


def _class(node: ast.ClassDef) -> Class:
    made = Class([base.id if isinstance(base, ast.Name) else ast.unparse(base).rpartition(".")[2] for base in node.bases])
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            made.returns[item.target.id] = item.annotation
            if "ClassVar" not in ast.unparse(item.annotation):
                made.fields.append(item.target.id)
        elif isinstance(item, ast.FunctionDef):
            made.returns[item.name] = item.returns
            annotations = {a.arg: a.annotation for a in [*item.args.args, *item.args.kwonlyargs]}
            for inner in ast.walk(item):  # self.x = <parameter>, or a call of a class
                if isinstance(inner, ast.Assign) and isinstance(inner.targets[0], ast.Attribute):
                    value = annotations.get(inner.value.id) if isinstance(inner.value, ast.Name) else inner.value
                    made.returns.setdefault(inner.targets[0].attr, value)
                elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Attribute):
                    made.returns.setdefault(inner.target.attr, inner.annotation)
    return made


class _Scope:
    """One body of code: what its names and attribute chains hold, whatever the order of its lines."""

    def __init__(self, sources: Sources, known: Mapping[str, Types]) -> None:
        self.sources = sources
        self.known = dict(known)

    def run(self, body: list[ast.stmt], owner: str = "") -> None:
        own = [node for statement in body for node in _own_nodes(statement)]
        for _ in range(2):  # names may hold what a later line says
            for node in own:
                self._learn(node)
        for node in own:
            if isinstance(node, ast.expr):
                self.type_of(node)
        for node in own:
            if isinstance(node, ast.ClassDef):
                _Scope(self.sources, self.known).run(node.body, node.name)
            elif isinstance(node, ast.FunctionDef | ast.Lambda):
                inner = _Scope(self.sources, self.known)
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                inner.known |= {a.arg: self.sources.named_in(a.annotation) for a in arguments if a.annotation}
                if owner and arguments and arguments[0].annotation is None:
                    inner.known[arguments[0].arg] = frozenset({owner})
                inner.run([ast.Expr(node.body)] if isinstance(node, ast.Lambda) else node.body)

    def _learn(self, node: ast.AST) -> None:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self._hold(target, self.type_of(value))
            case ast.AnnAssign(target=target, annotation=annotation):
                self._hold(target, self.sources.named_in(annotation))
            case ast.NamedExpr(target=target, value=value):
                self._hold(target, self.type_of(value))
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                self._hold(target, self.type_of(value))
            case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
                self._hold(target, self.type_of(value))
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, classes]):
                self._hold(value, self.sources.named_in(classes))
            case ast.match_case(pattern=pattern):
                for part in ast.walk(pattern):
                    if isinstance(part, ast.MatchClass):
                        for keyword in part.kwd_attrs:
                            self.sources.attribute(self.sources.named_in(part.cls), keyword)

    def _hold(self, target: ast.expr, types: Types) -> None:
        for node in [target, *(target.elts if isinstance(target, ast.Tuple) else ())]:
            if types:
                key = ast.unparse(node)
                self.known[key] = self.known.get(key, NOTHING) | types
                if isinstance(node, ast.Tuple):
                    for inner in node.elts:
                        self._hold(inner, types)

    def type_of(self, node: ast.expr) -> Types:
        """Return the classes that a value may have, noting each read of an attribute on the way."""
        known = self.known.get(ast.unparse(node), NOTHING)
        match node:
            case ast.Name(id=name):
                return known or (frozenset({name}) if name in self.sources.classes else NOTHING)
            case ast.Attribute(value=value, attr=name):
                return known | self.sources.attribute(self.type_of(value), name)
            case ast.Call(func=ast.Name(id="getattr"), args=[value, ast.Constant(value=str(name)), *_]):
                return self.sources.attribute(self.type_of(value), name)
            case ast.Call(func=ast.Name(id=name), args=args):
                if name in self.sources.classes:
                    return frozenset({name})
                if name in self.sources.functions:
                    return self.sources.named_in(self.sources.functions[name])
                return self._any(args) if name in PASSED else NOTHING
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                own = self.sources.attribute(self.type_of(value), name)
                return own or (self.type_of(value) if name in PASSING_ON else self._function(name))
            case ast.Subscript(value=value):
                return known | self.type_of(value)
            case ast.IfExp(body=body, orelse=orelse):
                return self._any([body, orelse])
            case ast.BoolOp(values=values) | ast.Tuple(elts=values) | ast.List(elts=values) | ast.Set(elts=values):
                return self._any(values)
            case ast.ListComp(elt=value) | ast.GeneratorExp(elt=value) | ast.SetComp(elt=value):
                return self.type_of(value)
            case ast.DictComp(value=value) | ast.Starred(value=value) | ast.NamedExpr(value=value):
                return self.type_of(value)
            case ast.Dict(values=values):
                return self._any(values)
        return known

    def _function(self, name: str) -> Types:
        return self.sources.named_in(self.sources.functions.get(name))

    def _any(self, nodes: list[ast.expr]) -> Types:
        return NOTHING.union(*(self.type_of(node) for node in nodes))


def _own_nodes(statement: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, those inside functions and classes left out."""
    yield statement
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        return
    for child in ast.iter_child_nodes(statement):
        yield from _own_nodes(child)
