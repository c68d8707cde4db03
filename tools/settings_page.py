"""Writes `docs/settings.md` from the table of settings in `chalicelib/settings.py`.

    python -m tools.settings_page

The text around the tables is in `settings.md.in`.
"""

from html import escape
from pathlib import Path
from typing import Final

from chalicelib.settings import ROWS, Setting

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "settings.md"
FRAME: Final = Path(__file__).parent / "settings.md.in"

REQUIRED: Final = {"PREFECT_API_URL": "https://prefect.example.com/api"}
"""The settings that have no default."""

SECTIONS: Final = {
    "PREFECT_API_URL": "Where Prefect is",
    "MODE": "What is rescued, and how",
    "STAGE": "Where it looks",
    "PROVISION": "What is provided",
    "WORKER_IMAGE": "The worker",
    "RATES": "Money",
    "LOG_LEVEL": "Log",
}
"""The page's sections, by the setting that each begins with."""

_HEAD: Final = "| setting | default | accepted | meaning |\n|---|---|---|---|"


def page() -> str:
    """Return the page, in Markdown."""
    lines: list[str] = []
    for row in ROWS.values():
        if row.name in SECTIONS:
            lines += ["", f"## {SECTIONS[row.name]}", "", _HEAD]
        lines.append(_line(row))
    return FRAME.read_text().replace("{tables}\n", "\n".join(lines[1:]) + "\n")


def _line(row: Setting) -> str:
    default = {None: "required", "": "empty"}.get(row.default, f"`{row.default}`")
    accepted = escape(row.form.accepted, quote=False).replace("\\", "\\\\")
    cells = (f"`{row.name}`", default, accepted, row.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page())
