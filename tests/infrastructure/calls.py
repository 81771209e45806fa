"""Which AWS operations a program can come to, read from its source.

By name, as nothing here is called by a computed one: what an entry point's module holds is reached; of the modules that
it imports, whatever runs at import, special methods and properties, and every function or method whose name is called,
or handed over to be, in what is reached. That is too much where two share a name, and too little only for a method that
is kept in between.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import botocore.session
from botocore import xform_name

from stack.bundling import ROOT
from stack.sources import reachable

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def calls(entry_point: str, *services: str) -> frozenset[str]:
    """As IAM actions: `dynamodb:GetItem`. What several services have by one name is the first's."""
    session = botocore.session.get_session()
    operations: dict[str, str] = {}
    for service in services:
        model = session.get_service_model(service)
        for name in model.operation_names:
            operations.setdefault(xform_name(name), f"{service}:{name}")
    names: set[str] = set()
    for node in _reached(entry_point):
        names |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        # A paginator's or a waiter's.
        names |= {
            part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
        }
    return frozenset(_allowed_by(action) for name, action in operations.items() if name in names)


def _allowed_by(operation: str) -> str:
    """Where IAM's name is another: a batch of messages is as many, and referrers go with images (ECR API reference)."""
    return "ecr:BatchGetImage" if operation == "ecr:ListImageReferrers" else operation.removesuffix("Batch")


def _reached(entry_point: str) -> list[ast.AST]:
    functions: dict[str, list[_Function]] = defaultdict(list)
    waiting: list[ast.AST] = []
    for path in reachable(ROOT, [entry_point]):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if path == ROOT.joinpath(*entry_point.split(".")).with_suffix(".py"):
            waiting.append(module)
        for statement in _statements(module):
            if (
                not isinstance(statement, _Function)
                or statement.name.startswith("__")
                or any(map(_is_property, statement.decorator_list))
            ):
                waiting.append(statement)
            else:
                functions[statement.name].append(statement)
                waiting += statement.decorator_list
    reached = []
    while waiting:
        node = waiting.pop()
        reached.append(node)
        for name in _names(node):
            waiting += functions.pop(name, ())
    return reached


def _statements(scope: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
    """Those of a module and of its classes, in place of the classes."""
    for statement in scope.body:
        if isinstance(statement, ast.ClassDef):
            yield from _statements(statement)
        else:
            yield statement


def _is_property(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id in ("property", "cached_property")


def _is_data(attribute: ast.Attribute) -> bool:
    """A rule's and a request's `repositories` are no function, though there is one of that name."""
    return isinstance(attribute.value, ast.Name) and attribute.value.id in ("rule", "request")


def _names(node: ast.AST) -> Iterator[str]:
    """Of what it calls, and of what it hands over."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            for one in (part.func, *part.args, *(keyword.value for keyword in part.keywords)):
                if isinstance(one, ast.Attribute) and not _is_data(one):
                    yield one.attr
                elif isinstance(one, ast.Name):
                    yield one.id
        elif isinstance(part, ast.Lambda | ast.Return | ast.Assign | ast.Dict | ast.Tuple | ast.List):
            for child in ast.iter_child_nodes(part):
                if isinstance(child, ast.Name):
                    yield child.id
