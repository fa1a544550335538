"""The contract of data: the facts of a training split, and the module that states them.

Shapes: inputs (B, C, H, W), as the data module gives them; targets as the task names them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Required, TypedDict, cast, get_args

import pytorch_lightning as pl
from torch import Tensor

InputType = Literal["uint8", "float32"]


class Facts(TypedDict, total=False):
    """Properties of a training split, as plain numbers and lists.

    A task is built from them, and checkpoints contain them. The first five are required.
    """

    in_channels: Required[int]
    """Channels C of the inputs."""

    out_channels: Required[int]
    """Outputs of the network: classes, or values per pixel."""

    mean: Required[list[float]]
    """Mean of each channel, by which the task normalises."""

    std: Required[list[float]]
    """Standard deviation of each channel, > 0."""

    dtype: Required[InputType]
    """Type of the inputs: images of uint8, or images or points of float32."""

    classes: list[str]
    """Names of the classes, in the order of their labels."""

    class_frequency: list[float]
    """Share of each class among the training labels."""

    ignore_label: int | None
    """Label of pixels that count nowhere; None if all count."""

    depth_mean: float
    depth_std: float
    """Mean and standard deviation of the valid depths, in metres."""

    depth_range: list[float]
    """Nearest and farthest valid depth in metres, 0.001 and 10 unless it is stated."""

    resize: list[int]
    """Height and width to which images were resized, if they were."""

    range: list[float]
    """Lowest and highest value of each coordinate, for points."""

    inputs: list[list[float]]
    targets: list[float]
    """Training points and their targets, which figures of points show."""


def complete(stated: Mapping[str, Any], needed: Collection[str] = ()) -> Facts:
    """Return facts with their `dtype`, which older checkpoints do not have.

    In these, points have a `range`, and all other inputs are uint8. Raises ValueError with
    key and value for a required fact that is missing or unsound, and for a missing one of
    those that are `needed` as well.
    """
    facts = {"dtype": "float32" if "range" in stated else "uint8", **stated}
    for name, (is_sound, expected) in REQUIRED.items():
        if name not in facts:
            raise ValueError(f"facts[{name!r}]: missing, expected {expected}")
        if not is_sound(facts[name], facts):
            raise ValueError(
                f"facts[{name!r}]={facts[name]!r}: expected {expected}"[:200]
            )
    for name in needed:
        if name not in facts:
            raise ValueError(f"facts[{name!r}]: missing")
    return cast(Facts, facts)


def _is_count(value: object, facts: Mapping[str, Any]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_per_channel(value: object, facts: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, list)
        and len(value) == facts["in_channels"]
        and all(isinstance(x, int | float) and math.isfinite(x) for x in value)
    )


def _is_scale(value: Any, facts: Mapping[str, Any]) -> bool:
    return _is_per_channel(value, facts) and min(value) > 0


def _is_dtype(value: object, facts: Mapping[str, Any]) -> bool:
    return value in get_args(InputType)


REQUIRED: dict[str, tuple[Callable[[Any, Mapping[str, Any]], bool], str]] = {
    "in_channels": (_is_count, "an integer >= 1"),
    "out_channels": (_is_count, "an integer >= 1"),
    "mean": (_is_per_channel, "a list with one finite number per channel"),
    "std": (_is_scale, "a list with one finite number > 0 per channel"),
    "dtype": (_is_dtype, " or ".join(get_args(InputType))),
}
"""Required fact -> check of its value, and the expected value as text."""


class DataModule(pl.LightningDataModule, ABC):
    """The base class of all data modules: a LightningDataModule that states its facts.

    The constructor reads no file; `setup` does, and raises DataError for bad files. The
    loaders return (inputs, targets). Batches need not come from memory.
    """

    batch_size: int
    """Samples of a batch."""

    in_channels: int
    """Channels C of the inputs. Files may give another number, which `setup` sets."""

    out_channels: int
    """Outputs of the network, as `in_channels`."""

    splits: Collection[str]
    """Names of the splits after `setup`: "train", "val", and "test" if there is one."""

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read the data and fill `splits`; a second call changes nothing."""

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an input; before `setup`, the expected one."""

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """Facts of the training split, after `setup`."""

    @abstractmethod
    def samples(self, split: str, number: int) -> tuple[Tensor, ...]:
        """Return the first inputs and targets of a split, without augmentation."""

    def predict_dataloader(self) -> Any:
        """Return the loader of the test split, or of the validation split without one."""
        return (
            self.test_dataloader() if "test" in self.splits else self.val_dataloader()
        )
