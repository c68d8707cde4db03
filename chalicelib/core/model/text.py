"""Text from outside (stop reasons, names, Prefect's and AWS's messages), fit to be shown.

Such text ends up in logs, metrics and Markdown: it is cut and escaped here, and nowhere else.
"""

from string import punctuation
from typing import Final

TEXT_LENGTH: Final = 200
"""Characters of a text from outside that are shown."""
_MARKDOWN_ESCAPES: Final = str.maketrans({mark: f"\\{mark}" for mark in punctuation})


LONGEST_TEXT: Final = 512
"""Characters kept of a text. ECS itself cuts a stop reason at about 128."""


def kept(text: str) -> str:
    """Return the text as it is stored: cut, and such that UTF-8 can encode it, as JSON's need not.

    Neither DynamoDB nor Prefect takes another.
    """
    return text[:LONGEST_TEXT].encode(errors="replace").decode()


def one_line(text: str, length: int = TEXT_LENGTH) -> str:
    """Return the text fit for a log line: printable, on one line, cut to `length` characters."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * length])
    return " ".join(printable.split())[:length]


def counted(number: int, thing: str) -> str:
    """Return the number with its noun: "1 run", "2,000 runs"."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def escaped(text: str, length: int = TEXT_LENGTH) -> str:
    """Return the text fit for a Markdown table cell: as `one_line`, all punctuation escaped."""
    return one_line(text, length).translate(_MARKDOWN_ESCAPES)


def table_cell(name: str) -> str:
    """Return a name for a cell of Prefect's table artifacts, which its UI may read as Markdown.

    Words stay as they are: of those alone the UI makes nothing, and shows backslashes.
    """
    return name if all(c.isalnum() or c in "-_/ " for c in name) else escaped(name)
