"""Screenshots: taken once the page stands still, kept small, and looked into."""

from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image, ImageStat
from playwright.sync_api import Locator, Page

STILL_SECONDS: Final = 60
PAUSE_MS: Final = 500
SAME: Final = 24
"""So far apart (of 255) two neighbouring pixels still are of one colour: edges are blurred."""

Colour = tuple[int, int, int]


def of(shown: Page | Locator, page: Page) -> Image.Image:
    """Return the picture that stayed the same for half a second; the newest after a minute."""
    newest = shown.screenshot()
    for _ in range(STILL_SECONDS * 1000 // PAUSE_MS):
        page.wait_for_timeout(PAUSE_MS)
        before, newest = newest, shown.screenshot()
        if newest == before:
            break
    return Image.open(BytesIO(newest)).convert("RGB")


def save(picture: Image.Image, file: Path) -> None:
    """Write it as PNG with 256 colours, which takes a third of the bytes."""
    file.parent.mkdir(exist_ok=True)
    picture.quantize(256).save(file, optimize=True)


def brightness(picture: Image.Image) -> float:
    """How bright it is on average: 0 is black, 255 white."""
    return float(ImageStat.Stat(picture.convert("L")).mean[0])


def is_like(colour: Colour, other: Colour) -> bool:
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= SAME


def stretches(picture: Image.Image, y: int) -> list[Colour]:
    """Return the colours of a row of pixels, from left to right; slivers are left out."""
    pixels = picture.crop((0, y, picture.width, y + 1)).tobytes()
    row: list[Colour] = list(zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True))
    found = [[row[0]]]
    for colour in row[1:]:
        if not is_like(colour, found[-1][-1]):
            found.append([])
        found[-1].append(colour)
    return [stretch[len(stretch) // 2] for stretch in found if len(stretch) > 2]
