"""Repeat the published experiments: `python scripts/reproduce.py table1|nyu|smallest|all`.

Each part has several sweeps over `seeds=[0,1,2]`, in `<out>/<part>/<sweep>`; `only=[...]`
selects some of them. A command that was stopped can be repeated: it continues, and finished
runs are not repeated. At the end, the published numbers and ours are written to
`page=<file>.md`, by default `<out>/reproduction.md`; `run=false` does only that. All other
arguments are overrides of a training, such as `trainer=gpu speed=mixed`. The part nyu needs
`path=<nyu_depth_v2_labeled.mat>`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from imex_experiments.config.arguments import split_arguments
from imex_experiments.config.overrides import hydra_quoted
from imex_experiments.errors import ConfigError, SweepError, nearest
from imex_experiments.installed import TRAIN
from imex_experiments.results.published import PARTS
from imex_experiments.results.reproduction import write_page
from imex_experiments.sweeps.reproduce import run_sweep


@dataclass
class Arguments:
    parts: list[str] = field(default_factory=list)
    only: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    out: str = "outputs/reproduction"
    page: str | None = None
    path: str | None = None
    run: bool = True


def main() -> None:
    args, overrides = split_arguments(Arguments, plain="parts")
    parts = check(args)
    out = Path(args.out)
    failed = []
    for part in parts if args.run else []:
        for sweep in PARTS[part]:
            if args.only and sweep.name not in args.only:
                continue
            print(f"{sweep.name}: {sweep.title}", flush=True)
            given = [*sweep.overrides, *overrides]
            if part == "nyu":
                given.append(f"data.path={hydra_quoted(Path(str(args.path)))}")
            code = run_sweep(TRAIN, given, args.seeds, out / part / sweep.name)
            if code > SweepError.exit_code:
                raise SystemExit(code)  # train.py has printed the error
            if code:
                failed.append(sweep.name)
    if "check=true" not in overrides:
        page = Path(args.page or out / "reproduction.md")
        write_page(page, out)
        print(f"written     {page}")
    if failed:
        raise SweepError(
            f"{', '.join(failed)}: not all runs have a result; "
            "repeat the command to run them"
        )


def check(args: Arguments) -> list[str]:
    """Return the parts to reproduce. Raises ConfigError for arguments that cannot work."""
    known = [*PARTS, "all"]
    if not args.parts:
        raise ConfigError(f"give a part: {', '.join(known)}")
    for part in args.parts:
        if part not in known:
            raise ConfigError(f"{part}: no such part, {nearest(part, known)}")
    parts = list(PARTS) if "all" in args.parts else args.parts
    names = [sweep.name for part in parts for sweep in PARTS[part]]
    for name in args.only:
        if name not in names:
            raise ConfigError(f"only={name}: no such sweep, {nearest(name, names)}")
    if not args.seeds:
        raise ConfigError("seeds=[]: give one or more")
    if "nyu" in parts and args.run and not (args.path and Path(args.path).is_file()):
        raise ConfigError(
            f"path={args.path}: no such file; the part nyu needs "
            "path=<nyu_depth_v2_labeled.mat>"
        )
    return parts
