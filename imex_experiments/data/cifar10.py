"""data=cifar10: CIFAR-10, read from the archive of its binary version.

The user supplies the archive. Each of its files holds records of one byte of label and
3 x 32 x 32 bytes of image.

Shapes: images (N, 3, 32, 32) uint8, labels (N,) uint8.
"""

import hashlib
import os
import tarfile
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from imex_experiments.data.augmentation import FlipsAndCrops
from imex_experiments.data.tensor_data import TensorData
from imex_experiments.errors import DataError
from imex_experiments.facts import Facts
from imex_experiments.files import open_regular

ARCHIVE = "cifar-10-binary.tar.gz"
SIZE = 170_052_171
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"

IMAGE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
MOST_RECORDS = 10_000
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"{FOLDER}/data_batch_{i}.bin" for i in range(1, 6))
TEST_FILE = f"{FOLDER}/test_batch.bin"
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def check_archive(path: Path) -> None:
    """Raise DataError unless size and MD5 of the file are those of the published archive."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != SIZE:
            raise DataError(
                f"{path}: expected {SIZE:,} bytes, got {size:,}; get it again from {SOURCE}"
            )
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if digest != MD5:
        raise DataError(
            f"{path}: expected MD5 {MD5}, got {digest}; get it again from {SOURCE}"
        )


def read_records(archive: tarfile.TarFile, name: str) -> tuple[Tensor, Tensor]:
    """Return images and labels of one file in the archive.

    Raises DataError for a file that is missing or has another format.
    """
    try:
        member = archive.getmember(name)
    except KeyError as error:
        raise DataError(f"{archive.name!s}: it has no {name}") from error
    number, rest = divmod(member.size, RECORD)
    file = archive.extractfile(member) if member.isreg() else None
    if file is None or rest or not 1 <= number <= MOST_RECORDS:
        raise DataError(
            f"{archive.name!s}: {name} has {member.size:,} bytes, expected 1 to "
            f"{MOST_RECORDS:,} records of {RECORD:,}"
        )
    content = file.read(member.size)
    if len(content) != member.size:
        raise DataError(f"{archive.name!s}: {name} is cut off")
    flat = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    records = flat.view(number, RECORD)
    labels = records[:, 0].clone()
    if int(labels.max()) >= len(CLASSES):
        raise DataError(
            f"{archive.name!s}: {name} has the label {int(labels.max())}, expected 0 to 9"
        )
    return records[:, 1:].reshape(number, *IMAGE), labels


class Cifar10Data(TensorData):
    """The data module of CIFAR-10.

    Batches are images (B, 3, 32, 32) uint8 and labels (B,) uint8.

    `root` is the folder of cifar-10-binary.tar.gz. Its size and MD5 are checked unless
    `verify=false`. The share `validation` of the training images, chosen by `seed`, is the
    validation split. `flips` and `crops` augment training images, see FlipsAndCrops.
    `setup` raises DataError for an archive that is missing, damaged or another one.
    """

    in_channels = IMAGE[0]
    out_channels = len(CLASSES)
    image_shape = IMAGE

    def __init__(
        self,
        root: str,
        validation: float = 0.1,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        verify: bool = True,
        flips: bool = False,
        crops: int = 0,
    ) -> None:
        augmentation = FlipsAndCrops(flips, crops)
        super().__init__(batch_size, num_workers, augmentation=augmentation)
        if not 0 < validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {validation}")
        self.path = Path(root).expanduser() / ARCHIVE
        self.validation, self.seed, self.verify = validation, seed, verify

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        try:
            if self.verify:
                check_archive(self.path)
            with (
                open_regular(self.path) as file,
                tarfile.open(self.path, "r:gz", file) as archive,
            ):
                parts = [read_records(archive, name) for name in TRAIN_FILES]
                test = read_records(archive, TEST_FILE)
        except FileNotFoundError as error:
            raise DataError(
                f"{self.path}: no such file; get it from {SOURCE}"
            ) from error
        except (tarfile.TarError, EOFError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(
                f"{self.path}: not a readable archive ({reason})"
            ) from error
        images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        order = torch.randperm(
            len(images), generator=torch.Generator().manual_seed(self.seed)
        )
        held = max(1, round(self.validation * len(images)))
        for split, chosen in (("train", order[held:]), ("val", order[:held])):
            self.splits[split] = TensorDataset(images[chosen], labels[chosen])
        self.splits["test"] = TensorDataset(*test)
        if self.batch_size > len(self.splits["train"]):
            raise DataError(
                f"{self.path}: {len(self.splits['train'])} training images are fewer than "
                f"data.batch_size={self.batch_size}"
            )

    @property
    def facts(self) -> Facts:
        """Mean and deviation of the training images, and the names of the classes."""
        images, _ = self.splits["train"].tensors
        planes = [images[:, channel].float() for channel in range(self.in_channels)]
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "mean": [float(plane.mean()) for plane in planes],
            "std": [max(float(plane.std()), 1.0) for plane in planes],
            "dtype": "uint8",
            "classes": list(CLASSES),
        }
