"""Overrides of a folder: which may join a command line, and that none tells a secret."""

import shutil
from pathlib import Path

import pytest
from conftest import Command
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from strangers import NOTE, OVERRIDES, forge

from imex_experiments.errors import CheckpointError
from imex_experiments.runs.strangers import CACHE, taken_words

SOURCE = Path("overrides.yaml")
ROOT = Path(__file__).parents[2]

OURS = (
    "model=imexnet",
    "model/layer=double",
    "model.widths=[4,8]",
    "+callbacks.hparams.hparams.x=${seed}",
    "callbacks.hparams.hparams.model=${hydra:runtime.choices.model}",
    "callbacks.history.path=null",
    "callbacks.history.path='${run_dir}/rows.csv'",
    "logger.name=curves",
    "logger=[tensorboard,csv,wandb]",
    "logger.csv.name=rows",
    "logger.wandb.project=sweep",
    "logger.mlflow.experiment_name=sweep",
    "trainer.profiler=simple",
    "~callbacks.figures",
    "optimizer._target_=torch.optim.SGD",
    "callbacks.stop={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:val/loss}",
    "data.root=../images",
    "data.seed=4000000000",
    "model.h=choice(0.5,1)",
    "seed=range(0,3)",
)


@pytest.mark.parametrize("word", OURS)
def test_what_a_user_writes_is_taken(word: str) -> None:
    assert taken_words([word], SOURCE, []) == [word]


THEIRS = {
    "a class": (
        ["optimizer._target_=subprocess.Popen"],
        "none of the classes of a run",
    ),
    "weights": (["weights=/elsewhere"], "a run starts from weights of yours alone"),
    "a reference to a node": (["logger=${callbacks.history}"], "cannot be checked"),
    "a count": (["data.train=1e8"], "at most 1,048,576"),
    "pixels": (["data.train=1000000", "data.image_size=9999"], "pixels are not taken"),
    "points": (
        ["seed=range(0,200)", "model.h=range(1,100)"],
        "a sweep of 19,800 points",
    ),
}


@pytest.mark.parametrize("kind", THEIRS)
def test_what_a_stranger_writes_is_not(kind: str) -> None:
    words, reason = THEIRS[kind]
    with pytest.raises(CheckpointError, match=reason):
        taken_words(words, SOURCE, [])


def test_what_is_refused_may_be_given_anew() -> None:
    word = "logger.save_dir=/elsewhere"
    with pytest.raises(CheckpointError, match="give it on the command line"):
        taken_words([word], SOURCE, ["seed=1"])
    assert taken_words([word], SOURCE, [word]) == []


@pytest.mark.parametrize(
    "word",
    [
        "logger.csv.save_dir=/elsewhere",
        "logger.mlflow.tracking_uri=http://elsewhere",
        "logger.wandb.project=stranger/project",
        "+logger.wandb.entity=stranger",
        "logger.wandb.version=of-another-run",
        "++logger={wandb:{name:a,save_dir:/elsewhere}}",
        "+logger.mine={_target_:pytorch_lightning.loggers.WandbLogger}",
    ],
)
def test_a_run_is_reported_to_places_of_the_user_alone(word: str) -> None:
    with pytest.raises(CheckpointError, match="give it on the command line"):
        taken_words([word], SOURCE, [])


def test_the_cache_is_the_users() -> None:
    assert taken_words(["data.cache_dir=/elsewhere"], SOURCE, []) == []
    for path in (ROOT / "conf/data").glob("*.yaml"):
        assert path.read_text().count("cache_dir") == path.read_text().count(CACHE)


PIECES = (
    "$",
    "{",
    "}",
    "\\",
    "oc.env",
    ":",
    "SECRET",
    "'",
    "a",
    ".",
    "seed",
    "[",
    "]",
    ",",
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_override_that_is_taken_resolves_to_a_secret(value: str) -> None:
    """However it is escaped, quoted or nested: what Hydra makes of it has no secret."""
    whole = "${oc.env:SECRET}"
    for text in (value, value + whole, whole + value):
        word = f"{NOTE}={text}"
        try:
            taken_words([word], SOURCE, [])
        except CheckpointError:
            continue
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SECRET", "told")
            node = {"x": OverridesParser.create().parse_override(word).value()}
            try:
                resolved = OmegaConf.to_container(OmegaConf.create(node), resolve=True)
            except OmegaConfBaseException:
                continue
        assert "told" not in str(resolved)


def test_a_run_with_references_and_an_empty_status_goes_on(
    trained: Path, tmp_path: Path, forked: Command
) -> None:
    """Its own keys may be referred to; a full disk may have left status.json empty."""
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    word = f"{NOTE}=${{seed}}"
    with (run / OVERRIDES).open("a") as file:
        file.write(f"- {word}\n")
    forge(run / ".hydra/config.yaml", word)
    (run / "status.json").write_text("")
    done = forked(str(ROOT / "train.py"), f"resume={run}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"finished"' in (run / "status.json").read_text()
