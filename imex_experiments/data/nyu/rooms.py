"""Generate furnished rooms, made of boxes.

World axes: x right, y ahead, z up, metres. A room is [0, width] x [0, length] x [0, height].
Its front, where the cameras stand, has no furniture.
"""

from dataclasses import dataclass, field

import numpy as np

SCENE_TYPES = (
    "kitchen",
    "office_kitchen",
    "kitchen",
    "bedroom",
    "kitchen",
    "living_room",
)
"""Types of successive scenes."""

# fmt: off
NAMES = (
    "wall", "floor", "ceiling", "cabinet", "counter", "refrigerator", "table", "box",
    "window", "door", "bed", "pillow", "sofa", "bookshelf", "television", "rug", "chair",
    "book",
)
# fmt: on

PLAIN, CHECKER, STRIPES, NOISE, TILES = range(5)

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Paint:
    """A pattern of two colours (linear RGB in [0, 1]), with its period in metres."""

    colour: Vector
    other: Vector = (0.0, 0.0, 0.0)
    pattern: int = PLAIN
    period: float = 0.3


@dataclass(frozen=True)
class Box:
    """An axis-aligned box."""

    name: str
    low: Vector
    high: Vector
    paint: Paint


@dataclass
class Room:
    """A room: size, paints of walls, floor and ceiling, a light, and boxes in it."""

    size: Vector
    walls: tuple[Paint, ...]
    floor: Paint
    ceiling: Paint
    light: Vector
    boxes: list[Box] = field(default_factory=list)

    def add(self, name: str, low: Vector, high: Vector, paint: Paint) -> None:
        self.boxes.append(Box(name, low, high, paint))


# --------------------------------------------------------------------- furniture


def make_room(kind: str, rng: np.random.Generator) -> Room:
    """Return a furnished room of one of SCENE_TYPES."""
    large = kind in ("living_room", "office_kitchen")
    width, length = rng.uniform(3.6, 4.8) + large, rng.uniform(4.2, 5.6) + large
    height = rng.uniform(2.4, 2.8)
    pale = _colour(rng, 0.45, 0.8)
    wall = Paint(pale, _scaled(pale, 0.85), int(rng.integers(0, 4)), 0.25)
    if "kitchen" in kind:
        floor = Paint((0.5, 0.46, 0.4), (0.22, 0.2, 0.18), CHECKER, 0.33)
    else:
        floor = Paint((0.4, 0.24, 0.12), (0.3, 0.17, 0.08), STRIPES, 0.12)
    light = (
        width * rng.uniform(0.3, 0.7),
        length * rng.uniform(0.2, 0.6),
        height - 0.25,
    )
    room = Room(
        (width, length, height), (wall,) * 4, floor, Paint((0.85, 0.85, 0.82)), light
    )
    {
        "kitchen": _kitchen,
        "office_kitchen": _office_kitchen,
        "bedroom": _bedroom,
        "living_room": _living_room,
    }[kind](room, rng)
    _opening(room, rng)
    return room


def _colour(rng: np.random.Generator, low: float, high: float) -> Vector:
    """Return a random colour of low saturation."""
    grey = rng.uniform(low, high)
    red, green, blue = np.clip(grey + rng.uniform(-0.12, 0.12, 3), 0.02, 0.95)
    return float(red), float(green), float(blue)


def _scaled(colour: Vector, factor: float) -> Vector:
    red, green, blue = colour
    return red * factor, green * factor, blue * factor


def _wood(rng: np.random.Generator) -> Paint:
    tone = rng.uniform(0.5, 1.2)
    return Paint(
        _scaled((0.45, 0.26, 0.12), tone),
        _scaled((0.36, 0.19, 0.08), tone),
        NOISE,
        0.08,
    )


def _kitchen(room: Room, rng: np.random.Generator) -> None:
    width, length, _ = room.size
    front = _colour(rng, 0.25, 0.75)
    doors = Paint(front, _scaled(front, 0.35), TILES, 0.45)
    top = Paint(_colour(rng, 0.08, 0.35), _colour(rng, 0.2, 0.4), NOISE, 0.03)
    room.add("cabinet", (0, length - 0.6, 0), (width - 0.8, length, 0.86), doors)
    room.add("counter", (0, length - 0.64, 0.86), (width - 0.8, length, 0.91), top)
    splash = Paint((0.7, 0.72, 0.7), (0.4, 0.4, 0.4), TILES, 0.15)
    room.add("wall", (0, length - 0.02, 0.91), (width, length, 1.5), splash)
    end = width * rng.uniform(0.45, 0.75)
    room.add("cabinet", (0, length - 0.36, 1.5), (end, length, 2.2), doors)
    fridge = Paint(_colour(rng, 0.55, 0.8), (0.2, 0.2, 0.2), TILES, 0.9)
    tall = rng.uniform(1.6, 1.9)
    room.add(
        "refrigerator", (width - 0.75, length - 0.72, 0), (width, length, tall), fridge
    )
    if rng.random() < 0.6:
        start = length * rng.uniform(0.4, 0.55)
        room.add("cabinet", (0, start, 0), (0.6, length - 0.6, 0.86), doors)
        room.add("counter", (0, start, 0.86), (0.64, length - 0.64, 0.91), top)
    for _ in range(int(rng.integers(3, 7))):
        x = rng.uniform(0.1, width - 1.2)
        size = rng.uniform(0.1, 0.3, 3)
        y = length - rng.uniform(0.1, 0.25)
        paint = Paint(_colour(rng, 0.15, 0.8))
        low = (x, y - size[1], 0.91)
        room.add("box", low, (x + size[0], y, 0.91 + size[2]), paint)
    _table(room, rng, rng.uniform(0.45, 0.65), rng.uniform(0.5, 0.6))


def _office_kitchen(room: Room, rng: np.random.Generator) -> None:
    _kitchen(room, rng)
    _table(room, rng, rng.uniform(0.2, 0.35), rng.uniform(0.4, 0.5))


def _table(room: Room, rng: np.random.Generator, across: float, ahead: float) -> None:
    """Add a table, a chair and a box, at fractions of the width and length of the room."""
    half, deep, tall = rng.uniform(0.4, 0.65), rng.uniform(0.3, 0.4), 0.74
    x, y, wood = across * room.size[0], ahead * room.size[1], _wood(rng)
    room.add(
        "table", (x - half, y - deep, tall - 0.04), (x + half, y + deep, tall), wood
    )
    _legs(room, "table", (x - half, y - deep), (x + half, y + deep), tall - 0.04, wood)
    size, paint = rng.uniform(0.12, 0.3), Paint(_colour(rng, 0.1, 0.8))
    room.add("box", (x, y, tall), (x + size, y + 0.8 * size, tall + size), paint)
    seat = x + half * rng.uniform(-0.6, 0.2)
    low, high = (seat, y + deep + 0.02), (seat + 0.42, y + deep + 0.44)
    room.add("chair", (*low, 0.42), (*high, 0.46), wood)
    room.add("chair", (low[0], high[1] - 0.04, 0.46), (*high, 0.95), wood)
    _legs(room, "chair", low, high, 0.42, wood)


def _legs(
    room: Room,
    name: str,
    low: tuple[float, float],
    high: tuple[float, float],
    tall: float,
    paint: Paint,
) -> None:
    thick = 0.05
    for x in (low[0], high[0] - thick):
        for y in (low[1], high[1] - thick):
            room.add(name, (x, y, 0), (x + thick, y + thick, tall), paint)


def _bedroom(room: Room, rng: np.random.Generator) -> None:
    width, length, _ = room.size
    x, wood = width * rng.uniform(0.25, 0.45), _wood(rng)
    cover = _colour(rng, 0.2, 0.7)
    blanket = Paint(cover, _scaled(cover, 0.5), int(rng.integers(1, 4)), 0.2)
    end = length - 2.0
    room.add("bed", (x, end, 0.1), (x + 1.5, length - 0.06, 0.35), wood)
    room.add(
        "bed", (x + 0.03, end + 0.03, 0.35), (x + 1.47, length - 0.1, 0.55), blanket
    )
    room.add("bed", (x - 0.05, length - 0.06, 0), (x + 1.55, length, 1.1), wood)
    white = Paint((0.8, 0.8, 0.78), (0.7, 0.7, 0.7), NOISE, 0.1)
    for start in (x + 0.12, x + 0.82):
        low, high = (start, length - 0.5, 0.55), (start + 0.56, length - 0.12, 0.68)
        room.add("pillow", low, high, white)
    room.add("table", (x - 0.55, length - 0.45, 0), (x - 0.1, length, 0.5), wood)
    doors = Paint(wood.colour, _scaled(wood.colour, 0.4), TILES, 0.6)
    start = length * rng.uniform(0.35, 0.5)
    room.add("cabinet", (width - 0.6, start, 0), (width, start + 1.5, 2.1), doors)
    _rug(room, rng)


def _living_room(room: Room, rng: np.random.Generator) -> None:
    width, length, _ = room.size
    cover = _colour(rng, 0.15, 0.6)
    fabric = Paint(cover, _scaled(cover, 0.7), NOISE, 0.05)
    y = length * rng.uniform(0.45, 0.6)
    room.add("sofa", (0.05, y, 0.08), (0.95, y + 2.0, 0.44), fabric)
    room.add("sofa", (0.05, y, 0.44), (0.3, y + 2.0, 0.85), fabric)
    for start in (y, y + 1.82):
        room.add("sofa", (0.3, start, 0.44), (0.95, start + 0.18, 0.62), fabric)
    x, wood = width * rng.uniform(0.45, 0.55), _wood(rng)
    room.add("table", (x, y + 0.5, 0.36), (x + 0.6, y + 1.5, 0.4), wood)
    _legs(room, "table", (x, y + 0.5), (x + 0.6, y + 1.5), 0.36, wood)
    start = width * rng.uniform(0.35, 0.5)
    room.add("cabinet", (start, length - 0.45, 0), (start + 1.6, length, 0.5), wood)
    black = Paint((0.02, 0.02, 0.025))
    low, high = (start + 0.2, length - 0.3, 0.55), (start + 1.4, length - 0.24, 1.25)
    room.add("television", low, high, black)
    _bookshelf(room, rng, wood)
    _rug(room, rng)


def _bookshelf(room: Room, rng: np.random.Generator, wood: Paint) -> None:
    width, length, _ = room.size
    left, near = width - 0.32, length * rng.uniform(0.5, 0.6)
    for y in (near, near + 1.2):
        room.add("bookshelf", (left, y, 0), (width, y + 0.04, 2.0), wood)
    for level in range(6):
        z = 0.4 * level
        low, high = (left, near, z), (width, near + 1.24, z + 0.03)
        room.add("bookshelf", low, high, wood)
        if level < 5:
            end, tall = near + rng.uniform(0.4, 1.15), z + rng.uniform(0.22, 0.32)
            spines = Paint(
                _colour(rng, 0.1, 0.5), _colour(rng, 0.2, 0.7), STRIPES, 0.09
            )
            low, high = (left + 0.06, near + 0.04, z + 0.03), (width, end, tall)
            room.add("book", low, high, spines)


def _rug(room: Room, rng: np.random.Generator) -> None:
    width, length, _ = room.size
    colour = _colour(rng, 0.15, 0.5)
    paint = Paint(colour, _scaled(colour, 1.8), CHECKER, 0.22)
    low = (width * 0.3, length * 0.3, 0.0)
    room.add("rug", low, (width * 0.75, length * 0.62, 0.015), paint)


def _opening(room: Room, rng: np.random.Generator) -> None:
    """Add a window to the right wall or a door to the left wall."""
    width, length, _ = room.size
    start = length * rng.uniform(0.3, 0.45)
    if rng.random() < 0.5:
        sky = Paint((0.85, 0.92, 0.98), (0.3, 0.3, 0.3), TILES, 0.55)
        room.add("window", (width - 0.02, start, 1.1), (width, start + 1.1, 2.1), sky)
    else:
        panel = _wood(rng)
        room.add("door", (0, start, 0), (0.03, start + 0.9, 2.05), panel)
