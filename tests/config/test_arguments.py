"""The words of a command line: pairs, and paths where a command takes them."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from omegaconf import MISSING

from imex_experiments.config.arguments import (
    parse_arguments,
    rewritten,
    split_arguments,
)
from imex_experiments.errors import ConfigError


@dataclass
class Arguments:
    runs: list[str] = MISSING
    out: str = "here"


@dataclass
class Documented(Arguments):
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    metric: str | None = None
    dry: bool = False


def test_paths_and_pairs_mix() -> None:
    """A path keeps its commas, brackets and =, as the folders of sweep jobs have them."""
    path = "outputs/0_model.widths=[4,8],seed=1"
    words = [path, "out=there", "runs=[a,b]", "c d"]
    args = parse_arguments(Arguments, words, plain="runs")
    assert args == Arguments([path, "c d", "a", "b"], "there")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data.images={split}", "data.images='{split}'"),
        ("data.labels={split}annot", "data.labels='{split}annot'"),
        ("++data.depths=d/{name}_d", "++data.depths='d/{name}_d'"),
        ("data.images='{split}'", "data.images='{split}'"),
        ("data.label_map={0: 1}", "data.label_map={0: 1}"),
        ("data.images=images", "data.images=images"),
    ],
)
def test_patterns_are_quoted_for_hydra(given: str, expected: str) -> None:
    """The shell has taken the quotes, and Hydra would read a mapping."""
    assert rewritten([given]) == [expected]


def test_a_list_of_one_needs_no_brackets() -> None:
    assert parse_arguments(Arguments, ["runs=a/b"]).runs == ["a/b"]
    assert parse_arguments(Arguments, ["c", "runs=a/b"], "runs").runs == ["c", "a/b"]


def test_folder_that_looks_like_a_pair_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=1").mkdir()
    assert parse_arguments(Arguments, ["seed=1"], plain="runs").runs == ["seed=1"]
    with pytest.raises(ConfigError, match="seed: unknown key"):
        parse_arguments(Arguments, ["x", "seed=2"], plain="runs")


def test_paths_are_refused_where_a_command_takes_none() -> None:
    with pytest.raises(ConfigError, match="a/b: expected key=value; usage: runs="):
        parse_arguments(Arguments, ["a/b"])
    with pytest.raises(ConfigError, match="runs: missing"):
        parse_arguments(Arguments, ["out=x"], plain="runs")


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_the_docstring_and_the_keys_with_their_defaults(
    word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also beside other words, and where words of another command are let through."""
    expected = [
        "The words of a command line: pairs, and paths where a command takes them.",
        "",
        "keys and their defaults:",
        "  runs=<must be given>",
        "  out=here",
        "  sizes=[1,2]",
        "  metric=null",
        "  dry=false",
    ]
    with pytest.raises(SystemExit) as ended:
        parse_arguments(Documented, ["out=there", word])
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == expected
    monkeypatch.setattr("sys.argv", ["tune.py", "model.h=1", word])
    with pytest.raises(SystemExit) as ended:
        split_arguments(Documented)
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("logger=null", "logger=none"),
        ("scheduler=null", "~scheduler"),
        ("model/diffusion=null", "~model/diffusion"),
        # of when there was one logger, without a name
        ("logger.name=curves", "logger.tensorboard.name=curves"),
        ("++logger.save_dir='a\nb'", "++logger.tensorboard.save_dir='a\nb'"),
        ("~logger.default_hp_metric", "~logger.tensorboard.default_hp_metric"),
        # and of now
        ("logger.csv=null", "logger.csv=null"),
        ("~logger.csv", "~logger.csv"),
        ("logger=[tensorboard,csv]", "logger=[tensorboard,csv]"),
        ("+logger.mine={_target_: x}", "+logger.mine={_target_: x}"),
        ("logger.csv.name=rows", "logger.csv.name=rows"),
        ("callbacks.figures=null", "callbacks.figures=null"),
    ],
)
def test_overrides_are_rewritten_for_hydra(given: str, read: str) -> None:
    assert rewritten([given, "seed=1"]) == [read, "seed=1"]
