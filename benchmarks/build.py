"""Seconds of three whole ascents, of this build and of an older one from the same weights: python -m benchmarks.build

Each build has a process of its own, as the study's tasks have, that goes from ascent to ascent; the builds take turns.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from math import ceil, floor
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks import report
from benchmarks.clock import Job
from benchmarks.work import SEED
from unlearning.core import genex
from unlearning.data import kinds
from unlearning.data.groups import study_data

OLDER, HERE = "538c02a", Path(__file__).parents[1]
ASCENTS = {"ind": "adamw", "ood-canary": "adafactor-restored", "ood-secret-x16": "adafactor-restored"}  # family: arm
RETAINED = 2  # other sets of the kind that are watched: about as many as a model held when the older build was made
NATS = 2e-4  # by which k* (in steps), exposures up to k* and the loss at k* may differ
SERVE = """import json, pathlib, sys, time
try:
    from unlearning.measure.ascent_job import unlearn_model
except ModuleNotFoundError:
    from unlearning.pipeline.ascent_jobs import unlearn_model
for line in sys.stdin:
    task, started = json.loads(line), time.perf_counter()
    unlearn_model(pathlib.Path(task.pop("out")), **task)
    print(time.perf_counter() - started, flush=True)
"""


def task(params: dict, family: str, arm: str) -> dict:
    """The ascent on a family's first set, from the first model that holds it: arguments of this build's task."""
    name, blocks = kinds.family_names(params["forget_sets"])[family][0], kinds.draws(params["forget_sets"])
    method, kind, tables = params["arms"][arm], blocks[name]["kind"], Path("results/tables")
    design = pd.read_csv(tables / "forget_sets/design.csv", index_col="model")
    scores = pd.read_parquet(tables / "train" / method["trained_with"] / "log_likelihoods.parquet")
    scores = scores.pivot(index="model", columns="example_id", values="log_likelihood").astype(float)
    model, signs = int(design[name].idxmax()), 2 * design[["base", name]].to_numpy() - 1
    own = scores[study_data(str(Path("data").resolve())).group(name).ids].to_numpy()
    reference = genex.predicted_reference(own, signs, model=model, column=1).tolist()
    retained = [n for n in blocks if n != name and design.loc[model, n] and blocks[n]["kind"] == kind][:RETAINED]
    what = {"data": "data", "folder": f"models/{method['trained_with']}/{model}", "forget_set": name, "arm": method}
    what |= {"population": kinds.population(kind), "retained": retained, "reference": reference, "steps": None}
    what |= {"settings": params["unlearn"], "seed": SEED, "threads": params["threads_per_task"], "device": "cpu"}
    return what | {"key": {"model": model, "forget_set": name}}


def for_older(task: dict) -> dict:
    """The same ascent as arguments of the older build's task."""
    return {k: v for k, v in task.items() if k != "arm"} | {
        "method": task["arm"],
        "followed": task["settings"]["followed"],
    }


def found(out: Path, task: dict) -> np.ndarray:
    """What an ascent found: k*, the loss at k* in nats per token, exposures of the set at each step up to k*."""
    k_star = pd.read_csv(out / "runs.csv")["k_star"].item()
    splits = pd.read_parquet(out / "performance.parquet").query("split == 'heldout'").set_index("step")
    around = splits["log_likelihood_per_token"].loc[[floor(k_star), ceil(k_star)]].astype(float)
    rows = pd.read_parquet(out / "log_likelihoods.parquet").astype({"example_id": str})
    own = rows[rows["example_id"].isin(study_data(str(Path("data").resolve())).group(task["forget_set"]).ids)]
    exposure = own[own["step"] <= ceil(k_star)].groupby("step")["log_likelihood"].mean() - np.mean(task["reference"])
    return np.array([k_star, -np.interp(k_star, around.index, around), *exposure])


def compare(tasks: Mapping[str, dict], folder: Path, *, repeats: int, capped: bool) -> pd.DataFrame:
    """One row an ascent: median seconds of both builds. RuntimeError: they did not find the same.

    folder: the older build's sources are in it. capped: to the instruction set of the study's stages.
    """
    env, rows = Job(print, threads=1, memory_kept=True, capped=capped).environment(), []
    with ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        lines = {
            build: stack.enter_context(
                subprocess.Popen([sys.executable, "-c", SERVE], **pipes, env=env | {"PYTHONPATH": str(root / "src")})
            )
            for build, root in {"before": folder, "after": HERE}.items()
        }
        for work, given in tasks.items():
            seconds, outs = {build: [] for build in lines}, {build: folder / f"{build}-{work}" for build in lines}
            for repeat in range(repeats):
                for build in sorted(lines, reverse=repeat % 2 == 0):
                    told = (for_older(given) if build == "before" else given) | {"out": str(outs[build])}
                    print(json.dumps(told), file=lines[build].stdin, flush=True)
                    seconds[build].append(float(lines[build].stdout.readline()))
            off = np.abs(np.subtract(*[found(out, given) for out in outs.values()])).max()
            print(f"{work}: {seconds}; largest difference {off:.1g}", flush=True)
            if not off <= NATS:
                raise RuntimeError(f"{work}: the builds differ by {off:.2g}, more than {NATS}")
            before, after = (float(np.median(seconds[build])) for build in ("before", "after"))
            rows.append(
                {"work": work + ", AVX2" * capped, "before_s": before, "after_s": after, "ratio": after / before}
            )
    return pd.DataFrame(rows).assign(repeats=repeats)


def main(ascents: Mapping[str, str] = ASCENTS, *, out: Path = report.RESULTS, repeats: int = 3) -> None:
    """Fetch the older build, time both with and without the cap on instructions, and write build.csv."""
    params = YAML(typ="safe", pure=True).load(Path("params.yaml"))
    tasks = {f"{family}, {arm}": task(params, family, arm) for family, arm in ascents.items()}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        sources = subprocess.run(["git", "archive", OLDER, "src"], cwd=HERE, check=True, capture_output=True).stdout
        tarfile.open(fileobj=io.BytesIO(sources)).extractall(folder, filter="data")
        tables = [compare(tasks, Path(folder), repeats=repeats, capped=capped) for capped in (True, False)]
    report.write_csv(pd.concat(tables), out / "build.csv")
    report.write_machine(out / "build-machine.json", {})


if __name__ == "__main__":
    main()
