"""Choose the frames of each split, such that no scene is in two splits.

Frames of one scene are alike. With a scene in two splits, the test would measure memory.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imex_experiments.data.nyu.file import NyuContents, read_official_split
from imex_experiments.errors import DataError

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
SEARCH_LIMIT = 200_000

Split = dict[str, list[int]]
Scenes = dict[str, list[int]]


def frames_of_types(
    path: Path, contents: NyuContents, scene_types: Sequence[str] | None
) -> list[int]:
    """Return the frames of some types of scene; all frames for None.

    Types are compared as a whole, because "office_kitchen" contains "kitchen".
    """
    if scene_types is None:
        return list(range(len(contents.scenes)))
    if contents.scene_types is None:
        raise DataError(
            f"{path}: it holds no sceneTypes to choose {list(scene_types)} from; set "
            "data.scene_types=null"
        )
    found = Counter(contents.scene_types)
    absent = [kind for kind in scene_types if kind not in found]
    if absent:
        held = ", ".join(f"{kind} ({n})" for kind, n in sorted(found.items()))
        raise DataError(
            f"{path}: no frames of data.scene_types={absent}; it holds {held}"
        )
    wanted = set(scene_types)
    return [i for i, kind in enumerate(contents.scene_types) if kind in wanted]


def _by_scene(contents: NyuContents, frames: Sequence[int], seed: int) -> Scenes:
    """Return the frames of each scene, with the scenes in random order."""
    names = sorted({contents.scenes[frame] for frame in frames})
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    scenes: Scenes = {name: [] for name in shuffled}
    for frame in frames:
        scenes[contents.scenes[frame]].append(frame)
    return scenes


def split_by_scenes(
    path: Path,
    contents: NyuContents,
    frames: Sequence[int],
    proportions: Sequence[float],
    seed: int,
    names: Sequence[str] = SPLITS,
) -> Split:
    """Split all frames in about the given proportions, without dividing a scene."""
    scenes = _by_scene(contents, frames, seed)
    if len(scenes) < len(names):
        raise DataError(
            f"{path}: {len(frames)} frames of {len(scenes)} scenes cannot fill "
            f"{', '.join(names)} without sharing a scene; choose more data.scene_types"
        )
    total = sum(proportions)
    missing = {
        name: len(frames) * share / total
        for name, share in zip(names, proportions, strict=True)
    }
    split: Split = {name: [] for name in names}
    for members in scenes.values():
        # Each split gets one scene, then each scene goes to the one that lacks most.
        empty = [name for name in names if not split[name]]
        side = max(empty or names, key=missing.__getitem__)
        split[side] += members
        missing[side] -= len(members)
    return {name: sorted(chosen) for name, chosen in split.items()}


def split_by_counts(
    path: Path,
    contents: NyuContents,
    frames: Sequence[int],
    counts: Sequence[int],
    seed: int,
) -> Split:
    """Return exactly so many frames for training, validation and test.

    No scene is in two splits. A split takes its frames from all of its scenes in turn.
    """
    scenes = _by_scene(contents, frames, seed)
    sides = _cover([len(members) for members in scenes.values()], counts)
    if sides is None:
        sizes = sorted(map(len, scenes.values()), reverse=True)
        raise DataError(
            f"{path}: data.counts={list(counts)} needs {sum(counts)} frames, no scene on two "
            f"sides; found {len(frames)} frames of {len(scenes)} scenes, of sizes "
            f"{str(sizes[:10])[1:-1]}{', ...' if len(sizes) > 10 else ''}"
        )
    split: Split = {}
    for side, (name, count) in enumerate(zip(SPLITS, counts, strict=True)):
        groups = [m for m, s in zip(scenes.values(), sides, strict=True) if s == side]
        turns = sorted(
            (turn, number, frame)
            for number, members in enumerate(groups)
            for turn, frame in enumerate(members)
        )
        split[name] = sorted(frame for _, _, frame in turns[:count])
    return split


def _cover(sizes: Sequence[int], needs: Sequence[int]) -> list[int] | None:
    """Assign each size to a side, such that the sum of each side is at least its need.

    Returns None if there is no assignment, or none after SEARCH_LIMIT steps, about a
    second. The search goes depth first, from the largest size to the smallest, and tries
    the side that lacks most first. No state is tried twice.
    """
    order = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    left = [sum(sizes[i] for i in order[at:]) for at in range(len(order) + 1)]
    tried: set[tuple[int, tuple[int, ...]]] = set()
    waiting: list[tuple[tuple[int, ...], tuple[int, ...]]] = [(tuple(needs), ())]
    while waiting and len(tried) < SEARCH_LIMIT:
        lacking, sides = waiting.pop()
        at = len(sides)
        if not any(lacking):
            sides += (0,) * (len(sizes) - at)  # scenes left over
            return [side for _, side in sorted(zip(order, sides, strict=True))]
        if sum(lacking) > left[at] or (at, lacking) in tried:
            continue
        tried.add((at, lacking))
        wanting = [side for side, lack in enumerate(lacking) if lack]
        for side in sorted(wanting, key=lacking.__getitem__):  # the last is tried first
            after = max(0, lacking[side] - sizes[order[at]])
            waiting.append(
                ((*lacking[:side], after, *lacking[side + 1 :]), (*sides, side))
            )
    return None


def split_officially(
    path: Path,
    contents: NyuContents,
    frames: Sequence[int],
    splits_file: Path,
    proportions: Sequence[float],
    seed: int,
) -> Split:
    """Return the split of `splits.mat`, with scenes of its training frames as validation."""
    number, used = len(contents.scenes), set(frames)
    train, test = read_official_split(splits_file)
    outside = [frame for frame in train + test if not 0 <= frame < number]
    if outside:
        raise DataError(
            f"{splits_file}: frame {outside[0] + 1} is not one of 1 ... {number} of {path}"
        )
    shared = set(train) & set(test)
    if shared:
        raise DataError(
            f"{splits_file}: {len(shared)} frames are both in trainNdxs ({len(train)}) and "
            f"testNdxs ({len(test)})"
        )
    train, test = (sorted(set(side) & used) for side in (train, test))
    if not train or not test:
        raise DataError(
            f"{splits_file}: an empty split: of the {len(used)} frames chosen, {len(train)} "
            f"are for training and {len(test)} for testing"
        )
    leaking = {contents.scenes[i] for i in train} & {contents.scenes[i] for i in test}
    if leaking:
        log.warning(
            "%s puts %d scenes on both sides, first %s",
            splits_file,
            len(leaking),
            min(leaking),
        )
    names = ("train", "val")
    sides = split_by_scenes(path, contents, train, proportions[:2], seed, names)
    return {**sides, "test": test}
