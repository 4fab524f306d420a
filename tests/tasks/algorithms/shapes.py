"""Small images of coloured shapes."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"circle": (220, 60, 60), "square": (60, 200, 60), "triangle": (80, 80, 230)}


def drawn(shape: str, seed: int, size: int = 24) -> Image.Image:
    """A shape of the class's colour, somewhere on a dark ground."""
    chance = random.Random(f"{shape}{seed}")
    image = Image.new("RGB", (size, size), tuple(chance.randrange(60) for _ in range(3)))
    side = chance.randrange(size // 3, size // 2)
    x, y = chance.randrange(size - side), chance.randrange(size - side)
    colour = tuple(max(0, part - chance.randrange(40)) for part in COLOURS[shape])
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse((x, y, x + side, y + side), fill=colour)
    elif shape == "square":
        draw.rectangle((x, y, x + side, y + side), fill=colour)
    else:
        draw.polygon([(x, y + side), (x + side, y + side), (x + side / 2, y)], fill=colour)
    return image


def draw_all(folder: Path, count: int, first: int = 0) -> Path:
    """A data set of ``count`` images of each shape, in formats of every kind."""
    suffixes = (".png", ".JPG", ".bmp", ".webp")
    for shape in COLOURS:
        (folder / shape / "more").mkdir(parents=True)
        for number in range(first, first + count):
            place = folder / shape / ("more" if number % 5 == 0 else "")
            drawn(shape, number).save(place / f"{number}{suffixes[number % len(suffixes)]}")
        (folder / shape / "notes.txt").write_text("no image")
    return folder
