"""Checks the built site: it loads nothing from the network.

python -m tools.site build/docs
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

LOADING: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_LOADED: Final = ("canonical", "next", "prev")


class Loads(HTMLParser):
    """Collects what a page loads from other hosts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        values = dict(attrs)
        address = values.get(LOADING.get(tag, "")) or ""
        if address.startswith(("http:", "https:", "//")) and values.get("rel") not in NOT_LOADED:
            self.foreign.append(address)


def main(folder: str) -> int:
    """Check all pages; 1 when one loads something, or when there is none."""
    pages = sorted(Path(folder).rglob("*.html"))
    found = [(page, address) for page in pages for address in Loads(page.read_text()).foreign]
    for page, address in found:
        print(f"{page} loads {address}: a reader without network misses it")
    print(f"{len(pages)} pages in {folder}, {len(found)} loads from the network")
    return 0 if pages and not found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
