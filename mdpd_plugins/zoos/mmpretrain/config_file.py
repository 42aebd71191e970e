"""MMPretrain's exported `config.py`, read as data.

mmengine runs such a file as a program, and builds whatever its `type` entries name, imported from anywhere. An export
needs neither: it holds values, and names of classes that are registered. So the file is parsed and never run.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from mdpd_plugins.adapters.storage.trust import asks_for_trust, refused, remote_code_trusted
from mdpd_plugins.registry.errors import CheckpointError

SCOPES = ("mmpretrain", "mmengine", "mmcv")


def read_exported_config(path: Path) -> Any:
    """The `mmengine.Config` of an export.

    Raises:
        CheckpointError: it is missing or no Python, or it holds anything but assignments of plain values; or it names
            something to build that no registry has.
    """
    from mmengine.config import Config

    if remote_code_trusted():
        return Config.fromfile(str(path))
    try:
        statements = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be read as a configuration ({error}): export again") from error
    fields: dict[str, Any] = {}
    for statement in statements:
        name = _assigned(statement)
        if name is None:
            raise refused(path, f"does more than set values (line {statement.lineno}: `{_shown(statement)}`)")
        try:
            fields[name] = _value(statement.value)  # type: ignore[attr-defined]
        except ValueError as error:
            raise refused(path, f"holds something to run (line {statement.lineno}: `{error}`)") from error
    if asks_for_trust(fields):
        raise refused(path, "switches on that code of others runs")
    _check_names(fields, path)
    return Config(fields)


def _assigned(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        # `_base_` reads other files, and `custom_imports` imports modules.
        if isinstance(target, ast.Name) and not target.id.startswith("_") and target.id != "custom_imports":
            return target.id
    return None


def _value(node: ast.expr) -> Any:
    """A literal, in which `dict(key=value)` counts as one; mmengine writes it so.

    Raises:
        ValueError: it is something else; the message is that part's text.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {_keyword(k, node): _value(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [_value(k) if k is not None else _refuse(node) for k in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List):
        return [_value(e) for e in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(e) for e in node.elts)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError):
        return _refuse(node)


def _keyword(keyword: ast.keyword, call: ast.Call) -> str:
    return keyword.arg if keyword.arg is not None else _refuse(call)


def _refuse(node: ast.AST) -> Any:
    raise ValueError(_shown(node))


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


WORDS = ("dw_cfg", ("DW", "GF"))  # HorNet looks at these words itself, and nothing is built by their names


def _check_names(value: Any, path: Path, key: str = "") -> None:
    """Refuse a `type` that no registry has: mmengine would import what it names, whatever that is."""
    if isinstance(value, dict):
        kind = value.get("type")
        word = key == WORDS[0] and kind in WORDS[1]
        if isinstance(kind, str) and not word and not _registered(kind):
            raise refused(path, f"names type={kind!r}, which MMPretrain does not register,")
        if (scope := value.get("_scope_", SCOPES[0])) not in SCOPES:
            raise refused(path, f"names the scope {scope!r}, which would be imported,")
        for inner, each in value.items():
            _check_names(each, path, str(inner))
    elif isinstance(value, (list, tuple)):
        for each in value:
            _check_names(each, path, key)


def _registered(kind: str) -> bool:
    import mmengine.registry
    import mmpretrain.registry
    from mmengine.registry import Registry

    scope, _, name = kind.rpartition(".")
    registries = [
        v for module in (mmengine.registry, mmpretrain.registry) for v in vars(module).values() if type(v) is Registry
    ]
    for registry in registries:
        registry.import_from_location()
    return scope in ("", *SCOPES) and any(name in registry.module_dict for registry in registries)


__all__ = ["read_exported_config"]
