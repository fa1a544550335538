"""An archive of CIFAR-10's layout with generated images."""

import io
import tarfile
from pathlib import Path

import numpy as np

from imex_experiments.data.cifar10 import CLASSES, IMAGE, TEST_FILE, TRAIN_FILES


def write_stand_in(path: Path, per_file: int, seed: int = 0) -> None:
    """Write an archive in which a class is a colour and a slope.

    It is not the published one, so it is read with verify=false.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32] / 31
    with tarfile.open(path, "w:gz") as archive:
        for name in (*TRAIN_FILES, TEST_FILE):
            labels = random.integers(0, len(CLASSES), per_file, dtype=np.uint8)
            angle = 2 * np.pi * labels[:, None, None] / len(CLASSES)
            slope = np.cos(angle) * rows + np.sin(angle) * columns
            planes = [slope, -slope, np.broadcast_to(np.cos(angle), slope.shape)]
            noise = random.normal(0, 0.1, (per_file, *IMAGE))
            images = 128 + 60 * (np.stack(planes, axis=1) + noise)
            pixels = images.clip(0, 255).astype(np.uint8).reshape(per_file, -1)
            content = np.concatenate([labels[:, None], pixels], axis=1).tobytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
