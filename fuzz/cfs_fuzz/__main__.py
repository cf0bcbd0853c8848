"""The fuzzer's command line; `make fuzz` runs all targets. Needs atheris but for `mutate`."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import itertools
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from cfs_fuzz import mutate
from cfs_fuzz.paths import add_builders
from cfs_fuzz.target import CORPUS, TARGETS, Target, check, load_targets

WORK = Path(__file__).resolve().parents[2] / ".cache/fuzz"
MEMORY_MB, HANG_SECONDS = 2048, 20
KEPT_BYTES, LARGEST_KEPT = 8_000, 2048
"""Of a target's corpus in the repository, and of one input there."""

_OURS = (
    "cfs_core",
    "cfs_disk",
    "cfs_grub",
    "cfs_initramfs",
    "cfs_policies",
    "cfs_prove",
    "cfs_seal",
    "cfs_storage_composefs",
    "cfs_systemd_boot",
    "cfs_transport_containers_storage",
    "cfs_transport_oci_dir",
    "cfs_transport_registry",
)


class Crashes:
    """Inputs that broke the rule, one for each place where they did."""

    def __init__(self, name: str) -> None:
        self.folder = WORK / name / "crashes"
        self.places: dict[str, Path] = {}

    def note(self, data: bytes, error: BaseException) -> None:
        """Keep *data* if nothing like it is kept."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/cfs_" in frame.filename and "/cfs_fuzz/" not in frame.filename]
        last = (ours or list(frames))[-1]
        place = f"{type(error).__name__} at {last.filename}:{last.lineno}"
        kept = self.places.get(place)
        if kept is not None and kept.stat().st_size <= len(data):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = kept or self.folder / hashlib.sha256(data).hexdigest()[:12]
        path.write_bytes(data)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error))[-20_000:])
        self.places[place] = path
        if kept is None:
            print(f"\n*** {place}: {str(error)[:200]!r}\n    {path}", flush=True)


def _instrumented(which: str, module: str) -> Target:
    """Return a target whose branches are seen. Only its own module is loaded: to instrument all takes longer."""
    import atheris

    with atheris.instrument_imports(include=list(_OURS)):
        importlib.import_module(module)
    return TARGETS[which]


def fuzz(which: str, module: str, seconds: int) -> int:
    """Fuzz one target, guided by coverage; libFuzzer ends the process."""
    import atheris

    target = _instrumented(which, module)
    crashes = Crashes(which)

    def one(data: bytes) -> None:
        try:
            check(target, data)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            crashes.note(data, error)

    found, seeds = WORK / which / "corpus", WORK / which / "seeds"
    shutil.rmtree(seeds, ignore_errors=True)
    for folder in (found, seeds, crashes.folder):
        folder.mkdir(parents=True, exist_ok=True)
    for data in target.corpus():
        (seeds / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        "-print_final_stats=0",
        f"-max_len={target.largest}",
        f"-artifact_prefix={crashes.folder}/",
        f"-dict={_dictionary(target)}",
        "-verbosity=0",
    ]
    atheris.Setup([which, *options, str(found), str(seeds)], one)
    atheris.Fuzz()
    return 0


def _dictionary(target: Target) -> Path:
    path = WORK / target.name / "words"
    words = [word for word in target.words if len(word) < 100]  # libFuzzer takes no longer ones
    path.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words))
    return path


def run_all(targets: dict[str, Target], names: list[str], seconds: int) -> int:
    """Fuzz targets, each in a process of its own; say which inputs broke the rule."""
    broken = []
    for name in names:
        shutil.rmtree(WORK / name / "crashes", ignore_errors=True)
        began = time.monotonic()
        program = "import sys; from cfs_fuzz.__main__ import one; one(*sys.argv[1:])"
        argv = [sys.executable, "-c", program, name, targets[name].run.__module__, str(seconds)]
        done = subprocess.run(argv, check=False)  # noqa: S603 - this program
        inputs = [path for path in sorted((WORK / name / "crashes").glob("*")) if path.suffix != ".txt"]
        kept = len(list((WORK / name / "corpus").glob("*")))
        print(
            f"{name}: {time.monotonic() - began:.0f} s, {kept} inputs worth keeping, {len(inputs)} broke the rule",
            flush=True,
        )
        broken += inputs
        if done.returncode and not inputs:
            print(f"{name}: the fuzzer itself ended with {done.returncode}")
            return 1
    for path in broken:
        print(f"{path}  (mend it, and put the file into fuzz/regressions/{path.parent.parent.name}/)")
    return bool(broken)


def explore(name: str, target: Target, seconds: float, seed: int) -> int:
    """Mutate without a guide; return how many places broke the rule."""
    crashes = Crashes(name)
    began, count = time.monotonic(), 0
    for data in mutate.mutations(seed, target.corpus(), target.words):
        if time.monotonic() - began > seconds:
            break
        count += 1
        try:
            check(target, data)
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            crashes.note(data, error)
    print(f"{name}: {count} mutations, {len(crashes.places)} places broke the rule", flush=True)
    return len(crashes.places)


def keep(name: str, target: Target) -> None:
    """Take what covers more than the builders' seeds into the repository: the smallest that do, within the budget."""
    with tempfile.TemporaryDirectory() as work:
        # libFuzzer starts itself again, by the first of its arguments and a shell.
        program = f"from cfs_fuzz.__main__ import merge; merge({name!r}, {target.run.__module__!r})"
        script, into = Path(work, "merge"), Path(work, "into")
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)} "$0" "$@"\n')
        script.chmod(0o755)
        into.mkdir()
        seeds_folder = WORK / name / "seeds"
        folders = [str(path) for path in (WORK / name / "corpus", CORPUS / name, seeds_folder) if path.is_dir()]
        options = ["-merge=1", "-verbosity=0", f"-timeout={HANG_SECONDS}", f"-max_len={target.largest}"]
        subprocess.run([script, *options, str(into), *folders], check=True)  # noqa: S603 - this program
        seeds = set(target.seeds())
        chosen = sorted((data for path in into.iterdir() if (data := path.read_bytes()) not in seeds), key=len)
        folder = CORPUS / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        total = itertools.accumulate(map(len, chosen))
        for data, size in zip(chosen, total, strict=True):
            if size <= KEPT_BYTES and len(data) <= LARGEST_KEPT:
                (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
        print(f"{name}: {len(list(folder.iterdir()))} of {len(chosen)} inputs kept", flush=True)


def one(which: str, module: str, seconds: str) -> None:
    """Fuzz one target; the whole of the process that is made for it."""
    add_builders()
    fuzz(which, module, int(seconds))


def merge(which: str, module: str) -> None:
    """Copy what covers more than what is there; libFuzzer, whose arguments the process has, ends it."""
    import atheris

    add_builders()
    target = _instrumented(which, module)

    def one(data: bytes) -> None:
        with contextlib.suppress(Exception):  # only coverage counts here
            check(target, data)

    atheris.Setup(sys.argv[1:], one)
    atheris.Fuzz()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m cfs_fuzz", description=__doc__)
    parser.add_argument("what", choices=["list", "all", "mutate", "keep"])
    parser.add_argument("targets", nargs="*", help="all where none is named")
    parser.add_argument("--seconds", type=int, default=180, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="of mutate")
    arguments = parser.parse_args()
    add_builders()
    targets = load_targets()
    names = arguments.targets or list(targets)
    if unknown := sorted(set(names) - set(targets)):
        parser.error(f"there is no target {unknown[0]}; known: {', '.join(targets)}")
    if arguments.what == "list":
        print("\n".join(f"{name:22}{(target.run.__doc__ or '').splitlines()[0]}" for name, target in targets.items()))
    elif arguments.what == "all":
        return run_all(targets, names, arguments.seconds)
    elif arguments.what == "keep":
        for name in names:
            keep(name, targets[name])
    else:
        return bool(sum(explore(name, targets[name], arguments.seconds, arguments.seed) for name in names))
    return 0


if __name__ == "__main__":
    sys.exit(main())
