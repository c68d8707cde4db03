"""Finds, in the source, every message that tells somebody of something wrong.

`messages.toml` lists them, each with its cause and the next step; `test_messages.py` compares.
"""

import ast
import builtins
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
LIST: Final = Path(__file__).with_name("messages.toml")

PYTHON: Final = (
    "app.py", "chalicelib/**/*.py", "infra/*.py", "spotctl/**/*.py", "examples/*.py",
    "doctools/*.py", "tests/ui/browser.py",
)  # fmt: skip
EMBEDDED_CLOUD: Final = "localcloud/**/*.py"
"""What `make demo` may fail of. Its other exceptions are AWS's own words, played."""

TOLD_AT: Final = {"failed": 1, "warning": 1, "Problem": 1, "became": 0}
"""Functions that make a row or a problem, and which argument of theirs is the message."""

SPEAKERS: Final = ("refusal_of", "reason_not_to_rerun", "one_line_of", "_of_client_error")
"""Functions that return a message: why not, or what happened."""

PAIRS_IN: Final = ("chalicelib/core/death.py", "spotctl/status/deployments.py")
"""Files in which a message and its next step stand side by side in a tuple."""

HOLE: Final = "…"


@dataclass(frozen=True)
class Message:
    """A message as the source has it; what is put in at run time shows as …"""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Listed:
    """A message of the list: how it goes, why it comes, and what to do.

    `step_in`: the other file that says what to do, where a message is part of a longer one.
    """

    file: str
    says: str
    cause: str
    next_step: str
    step_in: str = ""


def listed(path: Path = LIST) -> list[Listed]:
    """Read the list."""
    return [
        Listed(file, says, *cause_and_step)
        for file, messages in tomllib.loads(path.read_text()).items()
        for says, cause_and_step in messages.items()
    ]


def all_messages() -> list[Message]:
    """Return every message of the product, its tools and its demo, in the files' order."""
    found = [
        message
        for pattern in PYTHON
        for path in sorted(ROOT.glob(pattern))
        for message in messages_in(path.read_text(), _name(path))
    ]
    for path in sorted(ROOT.glob(EMBEDDED_CLOUD)):
        found += messages_in(path.read_text(), _name(path), of_python_only=True)
    script = ROOT / "examples" / "build_and_push.sh"
    found += _matches(script, r'fail "(?!\$found")([^"]+)"')
    found += _matches(ROOT / "Makefile", r'and "([^"]+)"')
    return found


def messages_in(source: str, file: str, *, of_python_only: bool = False) -> list[Message]:
    """Return the messages of a Python file. `of_python_only`: those of Python's own exceptions."""
    tree = ast.parse(source)
    constants = _assigned(tree.body)
    found = set(_messages(tree, file, constants, of_python_only=of_python_only))
    return sorted(found, key=lambda message: message.line)


@cache
def texts_of(file: str) -> str:
    """Return all text of a file as it comes out, with its pieces put together."""
    path = ROOT / file
    if path.suffix != ".py":
        return path.read_text()
    nodes = ast.walk(ast.parse(path.read_text()))
    return "\n".join(skeleton(n, {}) for n in nodes if isinstance(n, ast.Constant | ast.JoinedStr))


def skeleton(node: ast.expr, names: dict[str, ast.expr]) -> str:
    """Return the text that an expression makes; names are looked up, once."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(skeleton(part, {}) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return skeleton(left, names) + skeleton(right, names)
        case ast.Call(func=ast.Attribute(value=value, attr="rstrip" | "strip")):
            return skeleton(value, names)
        case ast.IfExp(body=one, orelse=other):
            return skeleton(one, names) or skeleton(other, names)
        case ast.Name(id=name) if name in names:
            return skeleton(names[name], {})
        case _:
            return HOLE


def _messages(
    tree: ast.AST, file: str, names: dict[str, ast.expr], *, of_python_only: bool
) -> Iterator[Message]:
    for node in ast.iter_child_nodes(tree):
        inside = names
        if isinstance(node, ast.FunctionDef):
            inside = {**names, **_assigned(list(ast.walk(node)))}
            if node.name in SPEAKERS:
                yield from _returned(node, file)
        told = _told(node, of_python_only=of_python_only)
        if file in PAIRS_IN and isinstance(node, ast.Tuple):
            told = _first_of_pair(node)
        text = skeleton(told, inside) if told is not None else ""
        if re.search(r"[a-z]", text, re.IGNORECASE):
            yield Message(file, getattr(node, "lineno", 0), text)
        yield from _messages(node, file, inside, of_python_only=of_python_only)


def _told(node: ast.AST, *, of_python_only: bool) -> ast.expr | None:
    """Return the expression that makes this node's message, None where it has none."""
    match node:
        case ast.Call(func=ast.Name(id="print"), args=[told, *_], keywords=keywords):
            to_stderr = any(ast.unparse(word.value) == "sys.stderr" for word in keywords)
            return told if to_stderr else None
        case ast.Call(func=ast.Name(id=name), args=[*arguments]) if name in TOLD_AT:
            return arguments[TOLD_AT[name]] if len(arguments) > TOLD_AT[name] else None
        case ast.Call(func=ast.Name(id=name), args=[told, *_]) if name.endswith("Error"):
            return told if not of_python_only or hasattr(builtins, name) else None
        case ast.Call(func=ast.Attribute(value=ast.Name("sys"), attr="exit"), args=[told]):
            return told if isinstance(told, ast.Constant | ast.JoinedStr) else None
        case ast.Raise(exc=ast.Call(func=ast.Name(), args=[ast.JoinedStr() as told, *_])):
            return None if of_python_only else told  # by another name than …Error
    return None


def _first_of_pair(node: ast.Tuple) -> ast.expr | None:
    """Of (sign, message, next step) or (message, next step): the message."""
    pair = node.elts[-2:]
    is_pair = len(pair) == 2 and all(" " in skeleton(part, {}) for part in pair)
    return pair[0] if is_pair else None


def _returned(function: ast.FunctionDef, file: str) -> Iterator[Message]:
    for node in ast.walk(function):
        match node:
            case (
                ast.Return(value=ast.Tuple(elts=[told, *_])) | ast.Return(value=ast.expr() as told)
            ):
                text = skeleton(told, {})
                if " " in text:
                    yield Message(file, node.lineno, text)


def _assigned(nodes: Sequence[ast.AST]) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found.setdefault(name, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found.setdefault(name, value)
    return found


def _matches(path: Path, pattern: str) -> list[Message]:
    lines = enumerate(path.read_text().splitlines(), start=1)
    return [
        Message(_name(path), n, text) for n, line in lines for text in re.findall(pattern, line)
    ]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
