"""A guard whose removal leaves its test green is not tested: each is taken out once.

In a copy of the source one line is changed, and the test of that guard must fail there.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

EXAMPLE = "docs/example_package"
RUNS, CALLBACKS = "imex_experiments/runs", "imex_experiments/callbacks"
DATA = "imex_experiments/data"

EVERY_STEP = "tests/test_resume.py::test_resume_at_every_step_is_exact[0 workers]"
SIXTY = "tests/test_malicious.py::test_sixty"
WORDS = "tests/runs/test_strangers_words.py::test"
OWN = "tests/test_own_classes.py::test"
FAILING = "tests/test_sweeps.py::test_failing_jobs_stop"
IO = "tests/runs/test_checkpoint_io.py::test"
PLAIN = "tests/runs/test_plain.py::test"


@dataclass(frozen=True)
class Guard:
    file: str
    line: str
    without: str
    test: str


GUARDS = {
    "content is synced": Guard(
        "imex_experiments/files.py",
        "os.fsync(file.fileno())",
        "pass",
        f"{IO}_content_is_on",
    ),
    "folder is synced": Guard(
        "imex_experiments/files.py", "os.fsync(handle)", "pass", f"{IO}_content_is_on"
    ),
    "temporary file lies beside": Guard(
        "imex_experiments/files.py",
        'path.with_name(f".',
        'Path(f"/tmp/.',
        f"{IO}_content_is_on",
    ),
    "checksum is compared": Guard(
        f"{RUNS}/checkpoint_io.py",
        "if _digest(content) not in _listed(path):",
        "if False:",
        f"{IO}_damaged_last_falls_back_to_the_newest_verified_one[a flipped bit]",
    ),
    "weights only": Guard(
        f"{RUNS}/checkpoint_io.py",
        "weights_only=True",
        "weights_only=False",
        f"{IO}_weights_only",
    ),
    "weights of a file only": Guard(
        f"{RUNS}/transfer.py",
        "weights_only=True",
        "weights_only=False",
        "tests/runs/test_transfer.py::test_what_is_no_start_is_one_clear_line[pickle]",
    ),
    "no URLs": Guard(
        f"{RUNS}/checkpoint_io.py",
        r'if re.match(r"\w+:/", str(path)):',
        "if False:",
        f"{IO}_urls",
    ),
    "two generations": Guard(
        f"{RUNS}/checkpoint_io.py",
        "if path.name == LAST.name and path.is_file():",
        "if False:",
        f"{IO}_last_leaves",
    ),
    "both digests while a file is replaced": Guard(
        f"{RUNS}/checkpoint_io.py",
        "_list(target, [*_listed(target), *digests])",
        "_list(target, digests)",
        f"{IO}_whatever",
    ),
    "damaged is set aside": Guard(
        "imex_experiments/files.py",
        "path.replace(path.with_name(aside))",
        "pass",
        f"{IO}_damaged_last_falls_back_to_the_newest_verified_one[cut]",
    ),
    "the fallback becomes last.ckpt": Guard(
        f"{RUNS}/checkpoint_io.py",
        "copy_checkpoint(newest, run / LAST)",
        "pass",
        "tests/test_resume.py::test_killed_in_its_very_last",
    ),
    "the end of a run without validation": Guard(
        f"{CALLBACKS}/checkpoints.py",
        "copy_checkpoint(self.last, self.best)",
        "pass",
        "tests/test_resume.py::test_killed_in_the_only",
    ),
    "rows behind those of the checkpoint": Guard(
        "imex_experiments/files.py",
        "file.truncate(self._length)",
        "pass",
        "tests/test_files.py::test_a_resumed_run",
    ),
    "rows of another file": Guard(
        "imex_experiments/files.py",
        "if digest.hexdigest() == sha256:",
        "if True:",
        "tests/test_files.py::test_a_table_that_is_not_the_one_written_is_set"
        "_aside[edited]",
    ),
    "no table through a link": Guard(
        "imex_experiments/files.py",
        "if self.path.is_symlink() or not self.path.is_file():",
        "if not self.path.is_file():",
        "tests/test_files.py::test_a_table_that_is_not_the_one_written_is_set"
        "_aside[a link]",
    ),
    "one run per folder": Guard(
        "imex_experiments/runs/folder.py",
        "return (folder / STATUS).exists() or has_checkpoint(folder)",
        "return False",
        "tests/test_faults.py::test_a_folder_has_one_run",
    ),
    "a folder that is gone": Guard(
        "imex_experiments/files.py",
        "        if folder.is_dir():\n            raise\n",
        "        raise\n",
        "tests/test_faults.py::test_a_folder_that_goes",
    ),
    "curves behind a clock that was set back": Guard(
        f"{CALLBACKS}/tensorboard.py",
        "if own and int(own[1]) <= newest:",
        "if False:",
        "tests/test_resume.py::test_curves",
    ),
    ".hydra is synced": Guard(
        "imex_experiments/runs/status.py",
        "sync_folder(folder / HYDRA)",
        "pass",
        "tests/test_faults.py::test_what_a_run_is",
    ),
    "a sweep's own file tells how it was started": Guard(
        f"{RUNS}/layout.py",
        "return hydras if hydras.is_file() and not own.is_file() else own",
        "return hydras",
        f"{FAILING}_nobody_and_resume_runs_exactly_those[1 good]",
    ),
    "a failed write is told": Guard(
        f"{RUNS}/checkpoint_io.py",
        "    except OSError as error:\n        raise StorageError(",
        "    except ZeroDivisionError as error:\n        raise StorageError(",
        f"{IO}_full_disk",
    ),
    "the resolved object is checked": Guard(
        "imex_experiments/config/build.py",
        "if not inspect.isclass(target) or not lies_in(target.__module__, allowed):",
        "if not inspect.isclass(target):",
        "tests/config/test_build.py::test_only_classes",
    ),
    "the name is checked before its import": Guard(
        "imex_experiments/config/build.py",
        "if not isinstance(path, str) or not lies_in(path, allowed):",
        "if not isinstance(path, str):",
        "tests/config/test_build.py::test_foreign_module",
    ),
    "the narrow list": Guard(
        "imex_experiments/config/build.py",
        'REBUILDING = ("imex_experiments",)',
        "REBUILDING = TRAINING",
        "tests/config/test_build.py::test_rebuilding",
    ),
    "no wider list of Hydra's": Guard(
        "imex_experiments/process/command.py",
        "os.environ.pop(ALLOW_MORE, None)",
        "pass",
        "tests/test_faults.py::test_setting_that",
    ),
    "no Hydra settings from a run": Guard(
        f"{RUNS}/strangers.py", "if NAMES_CODE.match(word):", "if False:", SIXTY
    ),
    "no commands from a sweep": Guard(
        "imex_experiments/sweeps/resume.py",
        "if not LAUNCH.fullmatch(word):",
        "if False:",
        SIXTY,
    ),
    "no folder allows packages": Guard(
        f"{RUNS}/strangers.py",
        "if content.get(ALLOW) and not allow:",
        "if False:",
        f"{OWN}_a_run_of_own_classes_is_refused",
    ),
    "no override of a folder does": Guard(
        f"{RUNS}/strangers.py",
        "if _key(word) == ALLOW and ALLOW not in now:",
        "if False:",
        f"{OWN}_no_folder_allows_anything[+allow=[os]]",
    ),
    "nor does one that sets an item": Guard(
        f"{RUNS}/strangers.py",
        "if group == ALLOW:",
        "if False:",
        f"{OWN}_no_folder_adds_to_what_the_keyboard_allows[allow.0=os]",
    ),
    "no resolver from a folder": Guard(
        f"{RUNS}/strangers.py",
        'if REFERENCE.search(KNOWN.sub("", text)):',
        "if False:",
        f"{WORDS}_no_override",
    ),
    "a place is in the run": Guard(
        f"{RUNS}/strangers.py",
        'if key == "run_dir" or not PLACE.fullmatch(str(value)):',
        "if False:",
        f"{WORDS}_what_is_refused",
    ),
    "the cache is the user's": Guard(
        f"{RUNS}/strangers.py",
        "if _key(word) in dropped:",
        "if False:",
        f"{WORDS}_the_cache",
    ),
    "changes are refused": Guard(
        f"{RUNS}/resume.py",
        "if changed:",
        "if False:",
        "tests/test_resume.py::test_change",
    ),
    "a resume is checked before it changes anything": Guard(
        "imex_experiments/training/prepared.py",
        "refuse_unfit(cfg, task)",
        "pass",
        "tests/test_resume.py::test_a_resume_that",
    ),
    "changes are honoured": Guard(
        f"{CALLBACKS}/reconfigured.py",
        "if not self.active:",
        "if True:",
        "tests/test_resume.py::test_change",
    ),
    "another machine is told": Guard(
        "imex_experiments/runs/status.py",
        "if key in before and before[key] != now[key]",
        "if False",
        "tests/test_resume.py::test_another_number",
    ),
    "position within an epoch": Guard(
        f"{DATA}/epoch_sampler.py",
        "start, self.start = self.start, 0",
        "start = 0",
        EVERY_STEP,
    ),
    "position is loaded": Guard(
        f"{CALLBACKS}/checkpoints.py",
        "trainer.fit_loop._load_combined_loader_states()",
        "pass",
        EVERY_STEP,
    ),
    "random numbers are restored": Guard(
        f"{CALLBACKS}/random_state.py",
        "if self._loaded is None:",
        "if True:",
        EVERY_STEP,
    ),
    "losses of the epoch so far": Guard(
        f"{CALLBACKS}/history.py", '"losses": losses', '"losses": []', EVERY_STEP
    ),
    "an order for each epoch": Guard(
        f"{DATA}/epoch_sampler.py",
        "[self.seed, self.ordered_by()]",
        "[self.seed]",
        "tests/data/test_epoch_sampler.py::test_epochs_and_seeds",
    ),
    "one curve": Guard(
        f"{CALLBACKS}/tensorboard.py",
        "if trainer.global_step == 0 or not trainer.is_global_zero:",
        "if True:",
        "tests/test_resume.py::test_goes_on",
    ),
    "a signal waits for the step": Guard(
        "imex_experiments/process/interrupts.py",
        "self._held = True",
        "self._held = False",
        EVERY_STEP,
    ),
    "a second signal does not": Guard(
        "imex_experiments/process/interrupts.py",
        "waits = self._held and self.pending is None",
        "waits = self._held",
        "tests/test_resume.py::test_second_signal",
    ),
    "loss is finite": Guard(
        f"{CALLBACKS}/finite_check.py",
        "torch.stack([loss, *norms])",
        "torch.stack([norms[0], *norms])",
        "tests/test_faults.py::test_nan_ends_before_the_update[loss]",
    ),
    "gradient is finite": Guard(
        f"{CALLBACKS}/finite_check.py",
        "torch.stack([loss, *norms])",
        "torch.stack([loss] * (1 + len(norms)))",
        "tests/test_faults.py::test_nan_ends_before_the_update[gradient]",
    ),
    "errors of storage": Guard(
        "imex_experiments/errors.py",
        "if isinstance(error, OSError) and error.errno in STORAGE:",
        "if False:",
        "tests/runs/test_status.py::test_what_ran_out",
    ),
    "memory": Guard(
        "imex_experiments/errors.py",
        "isinstance(error, RuntimeError) and NO_MEMORY.search(message)",
        "False",
        "tests/test_faults.py::test_out_of_memory",
    ),
    "data workers": Guard(
        "imex_experiments/errors.py",
        "if isinstance(error, RuntimeError) and (died := DEAD_WORKER.search(message)):",
        "if False:",
        "tests/test_faults.py::test_killed_data_worker",
    ),
    "a data worker that goes while it hands over a batch": Guard(
        "imex_experiments/errors.py",
        "if isinstance(error, GONE) and (workers := _loading(error)):",
        "if False:",
        "tests/runs/test_status.py::test_a_worker_that",
    ),
    "curves on a full disk": Guard(
        f"{CALLBACKS}/tensorboard.py",
        "except OSError as error:",
        "except ZeroDivisionError as error:",
        "tests/test_faults.py::test_disk_too_full",
    ),
    "a private folder": Guard(
        "imex_experiments/runs/folder.py",
        "mode=0o700, ",
        "",
        "tests/test_faults.py::test_run_folder_is",
    ),
    "room on the disk": Guard(
        "imex_experiments/runs/folder.py",
        "if free < needed:",
        "if False:",
        "tests/test_faults.py::test_nearly_full",
    ),
    "one process per folder": Guard(
        "imex_experiments/runs/folder.py",
        "with FileLock(folder / LOCK, timeout=seconds):",
        "if True:",
        "tests/runs/test_status.py::test_folder_of_a_run",
    ),
    "leftovers are swept": Guard(
        "imex_experiments/runs/folder.py",
        "sweep_partial(place)",
        "pass",
        "tests/runs/test_status.py::test_leftovers",
    ),
    "kernels of this user alone": Guard(
        "imex_experiments/operators/kernels/cpp.py",
        "if not _is_ours(folder.lstat(), stat.S_IFDIR):",
        "if False:",
        "tests/operators/test_fused.py::test_a_planted_library_is_not_loaded[everybody]",
    ),
    "digest of kernels": Guard(
        "imex_experiments/operators/kernels/cpp.py",
        'if hashlib.sha256(file.read()).hexdigest() != path.stem.rpartition("-")[2]:',
        "if False:",
        "tests/operators/test_fused.py::test_a_damaged_library_is_built_again[cut]",
    ),
    "one launcher per sweep": Guard(
        "imex_experiments/sweeps/hooks.py",
        '_sweep.enter_context(alone_in(sweep, seconds=1, kind="sweep"))',
        "pass",
        "tests/test_sweeps.py::test_a_sweep_has_one_launcher",
    ),
    "a report whatever a launcher raises": Guard(
        "imex_experiments/sweeps/hooks.py",
        "        lost = _report(sweep, config)\n        if isinstance",
        "        lost = ''\n        if isinstance",
        "tests/test_sweeps.py::test_a_sweep_is_reported",
    ),
    "no job runs that nobody runs": Guard(
        "imex_experiments/sweeps/hooks.py",
        "    record_lost(run_folders([sweep]).values())\n",
        "",
        "tests/test_sweeps.py::test_a_sweep_is_reported",
    ),
    "a job that never began is a row": Guard(
        "imex_experiments/sweeps/hooks.py",
        "            make_folders(points)\n",
        "",
        "tests/test_sweeps.py::test_a_sweep_is_reported",
    ),
    "a job of a sweep gets a signal twice": Guard(
        "imex_experiments/process/interrupts.py",
        "if self.once and self.pending is not None:",
        "if False:",
        "tests/test_resume.py::test_second_signal_to_a_job",
    ),
    "SIGHUP": Guard(
        "imex_experiments/process/interrupts.py",
        'NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR2")',
        'NAMES = ("SIGINT", "SIGTERM")',
        "tests/test_ends.py::test_sighup",
    ),
    "a reader that goes": Guard(
        "imex_experiments/process/console.py",
        "if error.errno not in GONE:",
        "if True:",
        "tests/test_ends.py::test_training_outlives",
    ),
    "a word that takes the checks away": Guard(
        "imex_experiments/commands/train.py",
        "keep_hooks(sys.argv[1:])",
        "pass",
        "tests/test_faults.py::test_what_checks_every",
    ),
    "a damaged best.ckpt": Guard(
        f"{RUNS}/checkpoint_io.py",
        "        _mend_best(run)\n",
        "        pass\n",
        "tests/test_resume.py::test_damaged_best",
    ),
    "the order of numbers in a network": Guard(
        "imex_experiments/networks/structure.py",
        "tuple(ranks[x] for x in walk.floats)",
        "len(walk.floats)",
        "tests/networks/test_structure.py::test_what_changes",
    ),
    "other tensors in a cache": Guard(
        f"{DATA}/cache.py",
        "if found != known or len(found) != len(wanted):",
        "if False:",
        "tests/data/test_cache.py::test_other_tensors",
    ),
    "checksum of the cache": Guard(
        f"{DATA}/cache.py",
        "if _checksum(tensors) != expected:",
        "if False:",
        "tests/data/test_cache.py::test_damaged_file_is_set_aside_and_made_anew[bit]",
    ),
    "a class of a run": Guard(
        f"{RUNS}/strangers.py",
        "if not _may_be_named(group, value, allow):",
        "if False:",
        f"{WORDS}_what_a_stranger_writes_is_not[a class]",
    ),
    "weights are the user's": Guard(
        f"{RUNS}/strangers.py",
        'elif key == "weights" and value is not None:',
        "elif False:",
        f"{WORDS}_what_a_stranger_writes_is_not[weights]",
    ),
    "no reference to a node": Guard(
        f"{RUNS}/strangers.py",
        'elif "${" in str(value) and (not rest or key == "trainer.profiler"):',
        "elif False:",
        f"{WORDS}_what_a_stranger_writes_is_not[a reference to a node]",
    ),
    "counts of a folder": Guard(
        f"{RUNS}/strangers.py",
        "if counted and abs(value) > most:",
        "if False:",
        f"{WORDS}_what_a_stranger_writes_is_not[a count]",
    ),
    "pixels of a folder": Guard(
        f"{RUNS}/strangers.py",
        "if total > MOST_PIXELS:",
        "if False:",
        f"{WORDS}_what_a_stranger_writes_is_not[pixels]",
    ),
    "points of a folder": Guard(
        f"{RUNS}/strangers.py",
        "if points > MOST_NUMBER:",
        "if False:",
        f"{WORDS}_what_a_stranger_writes_is_not[points]",
    ),
    "no alias in YAML": Guard(
        f"{RUNS}/plain.py",
        "if isinstance(event, yaml.AliasEvent):",
        "if False:",
        f"{PLAIN}_what_no_run_writes_is_refused[an alias]",
    ),
    "levels of YAML": Guard(
        f"{RUNS}/plain.py",
        "if depth > MOST_DEPTH or number > MOST_NODES:",
        "if False:",
        f"{PLAIN}_what_no_run_writes_is_refused[many levels]",
    ),
    "plain values of YAML": Guard(
        f"{RUNS}/plain.py",
        "elif not isinstance(node, str | int | float | None):",
        "elif False:",
        f"{PLAIN}_what_no_run_writes_is_refused[bytes]",
    ),
    "no link in a folder": Guard(
        f"{RUNS}/plain.py",
        "if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):",
        "if False:",
        f"{PLAIN}_a_link",
    ),
    "regular files": Guard(
        "imex_experiments/files.py",
        "if not stat.S_ISREG(status.st_mode):",
        "if False:",
        f"{PLAIN}_what_no_run_writes_is_refused[a FIFO]",
    ),
    "files of bounded size": Guard(
        "imex_experiments/files.py",
        "if most is not None and status.st_size > most:",
        "if False:",
        f"{PLAIN}_what_no_run_writes_is_refused[too long]",
    ),
    "values of a checkpoint": Guard(
        f"{RUNS}/checkpoint_io.py",
        "        check_contents(checkpoint)\n",
        "",
        f"{IO}_a_history_that_lacks",
    ),
    "no compressed checkpoint": Guard(
        f"{RUNS}/checkpoint_io.py",
        "        check_container(content)\n",
        "",
        f"{IO}_a_compressed",
    ),
    "a network of the checkpoint's size": Guard(
        f"{RUNS}/weights.py",
        "if tensors > most_tensors or weights > most_weights:",
        "if False:",
        "tests/runs/test_load.py::test_defects_are_one_clear_line[a larger network]",
    ),
    "signals from the first line on": Guard(
        "imex_experiments/commands/entry.py",
        "    end_at_once()  # until",
        "    pass  # until",
        "tests/test_ends.py::test_signal_while_importing_is_one_line[train.py]",
    ),
    "a job that runs elsewhere": Guard(
        "imex_experiments/sweeps/jobs.py",
        "    with alone_in(folder):\n        state",
        "    if True:\n        state",
        "tests/test_sweeps.py::test_a_job_that_is_running",
    ),
    "forks do not hold their own pipe": Guard(
        "imex_experiments/process/tied.py",
        "        os.close(self._held)\n        for number",
        "        for number",
        "tests/test_processes.py::test_forks_end_in_order",
    ),
    "values of a cache": Guard(
        f"{DATA}/cache.py",
        "        require_sound(tensors)\n",
        "",
        "tests/data/test_nyu_data.py::test_a_forged_cache_is_made_anew[too few]",
    ),
    "labels of a cache": Guard(
        f"{DATA}/qtips_data.py",
        'if int(found["labels"].max()) >= len(CLASSES):',
        "if False:",
        "tests/data/test_qtips_data.py::test_a_forged_cache",
    ),
    "depths of a cache": Guard(
        f"{DATA}/nyu/data_module.py",
        "if not 0 <= least <= largest < math.inf:",
        "if False:",
        "tests/data/test_nyu_data.py::test_a_forged_cache_is_made_anew[NaN]",
    ),
    "half a line of a study": Guard(
        "imex_experiments/sweeps/study.py",
        "file.truncate(",
        "abs(",
        "tests/test_search.py::test_a_trial_is_of_one",
    ),
    "a trial of another process": Guard(
        "imex_experiments/sweeps/study.py",
        "lock.acquire(timeout=0)",
        "pass",
        "tests/test_search.py::test_a_trial_is_of_one",
    ),
    "no point twice": Guard(
        "imex_experiments/sweeps/study.py",
        " if point not in known",
        "",
        "tests/test_search.py::test_a_space_of_few",
    ),
    "one maker of a cache": Guard(
        f"{DATA}/cache.py",
        "held.enter_context(FileLock(lock))",
        "pass",
        "tests/data/test_cache.py::test_processes_that_ask",
    ),
    "a share of the images": Guard(
        f"{DATA}/epoch_sampler.py",
        "order[rank::processes]",
        "order[: len(self)]",
        "tests/data/test_epoch_sampler.py::test_processes_share",
    ),
    "no key that nobody reads": Guard(
        "imex_experiments/config/build.py",
        "variadic\n    return names, False",
        "variadic\n    return names, True",
        "tests/config/test_build.py::test_no_class_of_lightning",
    ),
}


@pytest.mark.parametrize("name", GUARDS)
def test_the_guard_is_where_it_is_looked_for(name: str) -> None:
    guard = GUARDS[name]
    assert (ROOT / guard.file).read_text().count(guard.line) == 1
    file, _, test = guard.test.partition("::")
    assert test.partition("[")[0] in (ROOT / file).read_text()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutant")
    rooms = ("imex_experiments", "hydra_plugins", "conf", "tests", "scripts", EXAMPLE)
    for name in rooms:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", GUARDS)
def test_without_the_guard_its_test_fails(
    name: str, copy: Path, environment: dict[str, str]
) -> None:
    guard = GUARDS[name]
    path = copy / guard.file
    source = path.read_text()
    path.write_text(source.replace(guard.line, guard.without))
    try:
        file, _, test = guard.test.partition("::")
        chosen = [guard.test] if "[" in test else [file, "-k", test]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                *chosen,
            ],
            cwd=copy,
            env=environment | {"PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
        )
    finally:
        path.write_text(source)
    assert "1 failed" in done.stdout, done.stdout[-3000:]
