"""Draw circles, squares and triangles into a folder: a data set for the image classifier."""

import pathlib
import random
import sys

from PIL import Image, ImageDraw

SIZE = 48


def draw(shape, chance):
    image = Image.new("RGB", (SIZE, SIZE), tuple(chance.randrange(80) for _ in range(3)))
    side = chance.randrange(SIZE // 3, SIZE // 2)
    x, y = (chance.randrange(SIZE - side) for _ in range(2))
    colour = tuple(chance.randrange(120, 256) for _ in range(3))
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse((x, y, x + side, y + side), fill=colour)
    elif shape == "square":
        pen.rectangle((x, y, x + side, y + side), fill=colour)
    else:
        pen.polygon([(x, y + side), (x + side, y + side), (x + side / 2, y)], fill=colour)
    return image


root = pathlib.Path(sys.argv[1])
chance = random.Random(0)
for shape in ("circle", "square", "triangle"):
    (root / shape).mkdir(parents=True, exist_ok=True)
    for number in range(100):
        draw(shape, chance).save(root / shape / f"{number:03}.png")
