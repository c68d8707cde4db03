"""Strings that stand for secrets: planted in what comes in, searched for in what goes out."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote
from uuid import uuid4

FRAGMENT = 12
"""So many characters of one in a row are a leak: what is cut in the middle is one as well."""


@dataclass
class Canaries:
    """Secrets by the place where they were planted."""

    planted: dict[str, str] = field(default_factory=dict)

    def plant(self, place: str, secret: str = "") -> str:
        """Return a secret for a place, made up unless given; a place keeps the one it has."""
        return self.planted.setdefault(place, secret or f"canary{uuid4().hex}")

    def found_in(self, text: str) -> list[str]:
        """Return the places whose secret, or a part of it, stands in `text`, encoded or not."""
        return [
            place
            for place, secret in self.planted.items()
            if any(fragment in text for fragment in _fragments(secret))
        ]

    def found_in_bytes(self, data: bytes) -> list[str]:
        """Return what `found_in` does, for bytes."""
        return self.found_in(data.decode(errors="replace"))


def _fragments(secret: str) -> Iterator[str]:
    for form in (secret, quote(secret, safe="")):
        yield from (form[i : i + FRAGMENT] for i in range(max(1, len(form) - FRAGMENT + 1)))
    for shift in range(3):  # in Base64 a text looks three ways, by where it begins
        encoded = base64.b64encode(b"-" * shift + secret.encode()).decode()
        yield encoded[4 : len(encoded) - 4]
