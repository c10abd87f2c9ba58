"""A digest of a stage's code, so that Snakemake reruns what new code would change."""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
HAS_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def source_digest(stage: str) -> str:
    """Digest a stage and the ground floor that it uses; comments and layout don't count.

    Contents count, not dates: a fresh checkout of the same code has the same digest. The
    stage's ``config.py`` does not count, because its values reach the rule as knobs.
    """
    wanted = {p for p in (PACKAGE / stage).rglob("*.py") if p.name != "config.py"}
    found: set[Path] = set()
    while wanted:
        path = wanted.pop()
        found.add(path)
        imported = _read(path)[1]
        wanted |= {p for p in imported if p not in found and p.name != "config.py"}
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(f"{path.relative_to(PACKAGE)}\n{_read(path)[0]}".encode())
    data = [p for p in (PACKAGE / stage).rglob("*") if p.is_file() and p.suffix not in _CODE]
    for path in sorted(data):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


_CODE = {".py", ".pyc"}


@functools.cache
def _read(path: Path) -> tuple[str, frozenset[Path]]:
    """Syntax tree of a file without docstrings, and the package's files that it imports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, HAS_DOCSTRING):
            node.body = [s for s in node.body if not _is_docstring(s)]
    return ast.dump(tree), frozenset(_imported(tree))


def _imported(tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("phenopipe."):
                place = PACKAGE.joinpath(*name.split(".")[1:])
                yield from (
                    p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()
                )


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
