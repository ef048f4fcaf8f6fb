"""Which fields of the settings classes the sources read, told by reading the sources alone.

Usage: `unread_settings(Sources({path: ast.parse(text), ...}))`.

A read is an attribute access on a value whose class can be inferred: from annotations of parameters, fields, functions
and properties, from `isinstance`, and from assignments and loops. Containers count as what they hold. Two classes with
a field of one name are told apart. A dump of all fields (`model_dump`) is no read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

BASE = "Frozen"
Types = frozenset[str]
NOTHING: Types = frozenset()
# Methods and functions that return what they hold or are given.
METHODS = {"values", "items", "get", "pop", "model_copy", "setdefault", "copy"}
FUNCTIONS = {
    "sorted", "list", "tuple", "dict", "reversed", "iter", "next", "enumerate", "zip", "cast", "set", "max", "min",
}  # fmt: skip


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
        self._above = {name: self._line(name) for name in self.classes}
        self._below: dict[str, list[str]] = {}
        for name, line in self._above.items():
            for one in dict.fromkeys(line):
                self._below.setdefault(one, []).append(name)
        self.reads: set[tuple[str, str]] = set()
        self.held: dict[tuple[str, str], Types] = {}  # class and attribute -> what its methods assign to it
        for _ in range(2):  # a method may read what another one assigns
            for tree in trees.values():
                _Scope(self, {}).run(tree.body)

    def ancestors(self, name: str) -> list[str]:
        """Return a class and its bases, itself first."""
        return self._above.get(name, [])

    def _line(self, name: str) -> list[str]:
        if name not in self.classes:
            return []
        return [name, *(base for own in self.classes[name].bases for base in self._line(own))]

    def descendants(self, name: str) -> list[str]:
        return self._below.get(name, [])

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
        found = NOTHING.union(*(self.held.get((owner, name), NOTHING) for owner in owners))
        for owner in owners:
            holders = [c for c in self.ancestors(owner) if name in self.classes[c].returns]
            # A stage's settings are often known by a base class only, and the kind by another condition.
            holders = holders or [c for c in self.descendants(owner) if name in self.classes[c].returns]
            for holder in holders:
                self.reads.add((holder, name))
                found |= self.named_in(self.classes[holder].returns[name])
        return found


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
    made = Class(
        [base.id if isinstance(base, ast.Name) else ast.unparse(base).rpartition(".")[2] for base in node.bases]
    )
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            made.returns[item.target.id] = item.annotation
            if "ClassVar" not in ast.unparse(item.annotation):
                made.fields.append(item.target.id)
        elif isinstance(item, ast.FunctionDef):
            made.returns[item.name] = item.returns
    return made


class _Scope:
    """One body of code: what its names and attribute chains hold, whatever the order of its lines."""

    def __init__(self, sources: Sources, known: Mapping[str, Types]) -> None:
        self.sources = sources
        self.known = dict(known)
        self.types: dict[ast.expr, Types] | None = None  # of what was inferred, once all names are known

    def run(self, body: Sequence[ast.stmt], owner: str = "") -> None:
        own = [node for statement in body for node in _own_nodes(statement)]
        for _ in range(2):  # names may hold what a later line says
            for node in own:
                self._learn(node)
        self.types = {}
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
                    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                        for name, part in zip(target.elts, value.elts, strict=False):
                            self._hold(name, self.type_of(part))
                    else:
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

    def _hold(self, target: ast.expr, types: Types) -> None:
        if isinstance(target, ast.Tuple):
            for inner in target.elts:
                self._hold(inner, types)
        elif types and (chain := _chain(target)):
            self.known[chain] = self.known.get(chain, NOTHING) | types
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                for owner in self.known.get(target.value.id, NOTHING):
                    place = (owner, target.attr)
                    self.sources.held[place] = self.sources.held.get(place, NOTHING) | types

    def type_of(self, node: ast.expr) -> Types:
        """Return the classes that a value may have, noting each read of an attribute on the way."""
        if self.types is None:
            return self._infer(node)
        if node not in self.types:
            self.types[node] = self._infer(node)
        return self.types[node]

    def _infer(self, node: ast.expr) -> Types:
        known = self.known.get(_chain(node), NOTHING)
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
                given = frozenset(a.id for a in args if isinstance(a, ast.Name)) & self.sources.classes.keys()
                if name in self.sources.functions:
                    return self.sources.named_in(self.sources.functions[name]) | given  # f(cls: type[Model]) -> Model
                return self._any(args) if name in FUNCTIONS else NOTHING
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                own = self.sources.attribute(self.type_of(value), name)
                return own or (self.type_of(value) if name in METHODS else self._function(name))
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


def _chain(node: ast.AST) -> str:
    """Return a dotted chain of names as it is written; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    chain = _chain(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{chain}.{node.attr}" if chain else ""  # type: ignore[attr-defined] # only an attribute has a chain


def _own_nodes(statement: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, those inside functions and classes left out."""
    yield statement
    if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        return
    for child in ast.iter_child_nodes(statement):
        yield from _own_nodes(child)
