"""Make a trained network that comes with the package, and its model card, from a run.

`python scripts/maintenance/publish.py run=<run> name=<name> limits="<one sentence>"`

It writes <name>.safetensors, of less than 1 MB, and the card <name>.md to `out`, by default
the folder imex_experiments/pretrained. The card has the data, the recipe and the scores of the
run; `limits` says what the network is not good for. Paths of this machine are left out.
"""

from imex_experiments.process.interrupts import end_at_once

if __name__ == "__main__":
    end_at_once()  # until the imports are done, which takes seconds

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf

from imex_experiments.config.arguments import parse_arguments
from imex_experiments.files import write_text
from imex_experiments.networks.cost import count_parameters
from imex_experiments.process.command import run_command
from imex_experiments.runs.layout import OVERRIDES
from imex_experiments.runs.load import load_config, read_history, read_metrics
from imex_experiments.runs.plain import read_yaml
from imex_experiments.runs.pretrained import FOLDER, SUFFIX, write_pretrained
from imex_experiments.runs.status import read_status
from imex_experiments.tasks import Task

CARD = """\
# {name}

{network} of {weights:,} weights, a {task} for {dtype} images (N, {channels}, H, W). It is the
checkpoint of seed {seed} that was best by `{monitor}`.

```python
from imex_experiments import load_pretrained

task = load_pretrained("{name}")
predictions = task.predict(images)
```

```bash
python scripts/predict.py pretrained={name} images=<folder> out=<folder>
```

## Data

```yaml
{data}
```

## Recipe

```bash
python train.py {words}
```

{epochs} epochs, {seconds:,.0f} seconds of training, device {device}, CPU threads {threads},
torch {torch}, commit {commit}.

## Scores

| metric | validation | test |
|---|---|---|
{scores}

## Limits

{limits}
"""


@dataclass
class Arguments:
    run: str = MISSING
    name: str = MISSING
    limits: str = MISSING
    out: str = str(FOLDER)


def main() -> None:
    args = parse_arguments(Arguments)
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    scores = {
        name: value
        for name, value in read_metrics(args.run).items()
        if name.startswith(("val/", "test/"))
    }
    path = folder / f"{args.name}{SUFFIX}"
    task = write_pretrained(path, args.run, scores)
    write_text(path.with_suffix(".md"), card(args, task, scores))
    print(f"written     {path} ({path.stat().st_size:,} bytes), {path.stem}.md")


def card(args: Arguments, task: Task, scores: Mapping[str, float]) -> str:
    """Return the model card of a run."""
    status = read_status(Path(args.run))
    data = OmegaConf.to_container(load_config(args.run).data, resolve=False)
    assert isinstance(data, dict)
    data.pop("cache_dir", None)
    words = read_yaml(Path(args.run) / OVERRIDES)
    return CARD.format(
        name=args.name,
        network=type(task.network).__name__,
        weights=count_parameters(task.network)["total"],
        task=type(task).__name__,
        dtype=task.facts["dtype"],
        channels=task.facts["in_channels"],
        seed=status["seed"],
        monitor=task.monitor,
        data=yaml.safe_dump(public(data), sort_keys=False).strip(),
        words=" ".join(word for word in map(public, words) if "cache_dir" not in word),
        epochs=len(read_history(args.run)),
        seconds=read_metrics(args.run)["train_seconds"],
        device=status["device"],
        threads=status["threads"],
        torch=status["versions"]["torch"],
        commit=str(status["git_commit"])[:7],
        scores="\n".join(rows(scores)),
        limits=args.limits,
    )


def public(value: Any) -> Any:
    """Return a value, or an override, with `<path>` in place of a path.

    A pattern of file names below such a path, {split}/images, is no secret.
    """
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items()}
    key, equals, setting = (
        value.rpartition("=") if isinstance(value, str) else ("", "", value)
    )
    private = "/" in str(setting) and "{" not in str(setting)
    return f"{key}{equals}<path>" if private else value


def rows(scores: Mapping[str, float]) -> list[str]:
    """Return the rows of the table of scores."""
    names = [name.removeprefix("val/") for name in scores if name.startswith("val/")]
    return [
        f"| {name} | {scores[f'val/{name}']:.4f} | "
        + (f"{scores[f'test/{name}']:.4f} |" if f"test/{name}" in scores else "|")
        for name in names
    ]


if __name__ == "__main__":
    run_command(main)
