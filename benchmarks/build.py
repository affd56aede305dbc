"""Seconds of whole ascents, by an older build and by this one, from the same weights: python -m benchmarks.build"""

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from math import ceil, floor
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks import report
from benchmarks.clock import Job
from benchmarks.work import SEED
from unlearning.core.genex import predicted_reference
from unlearning.data import kinds

OLDER, ROOT, TABLES = "538c02a", Path(__file__).parents[1], Path("results/tables")
ASCENTS = {"ind": "adamw", "ood-canary": "adafactor-restored", "ood-secret-x16": "adafactor-restored"}  # family: arm
RETAINED = 2  # other sets that are watched: about as many of a kind as a model held when the older build was made
NATS = 2e-4  # by which k* (in steps), exposures up to k* and losses around it may differ
SERVE = """import json, pathlib, sys, time
try:
    from unlearning.measure.ascent_job import unlearn_model
except ModuleNotFoundError:
    from unlearning.pipeline.ascent_jobs import unlearn_model
for line in sys.stdin:
    started, (out, task) = time.perf_counter(), json.loads(line)
    unlearn_model(pathlib.Path(out), **task)
    print(time.perf_counter() - started, flush=True)
"""


def ids(name: str) -> list[str]:
    """The examples of a forget set."""
    examples = pd.read_parquet(TABLES / "forget_sets/examples.parquet").astype({"example_id": str})
    return examples.loc[examples["forget_set"] == name, "example_id"].tolist()


def ascent(params: dict, family: str, arm: str) -> dict:
    """A family's first set from the first model that holds it: the arguments that both builds take."""
    name, blocks = kinds.family_names(params["forget_sets"])[family][0], kinds.draws(params["forget_sets"])
    kind, place = blocks[name]["kind"], params["arms"][arm]["trained_with"]
    design = pd.read_csv(TABLES / "forget_sets/design.csv", index_col="model")
    scores = pd.read_parquet(TABLES / f"train/{place}/log_likelihoods.parquet")
    scores = scores.pivot(index="model", columns="example_id", values="log_likelihood")[ids(name)].to_numpy(float)
    model, signs = int(design[name].idxmax()), 2 * design[["base", name]].to_numpy() - 1
    retained = [n for n in blocks if n != name and design.loc[model, n] and blocks[n]["kind"] == kind][:RETAINED]
    task = {"data": "data", "folder": f"models/{place}/{model}", "forget_set": name, "retained": retained}
    task |= {"reference": predicted_reference(scores, signs, model=model, column=1).tolist(), "steps": None}
    task |= {"population": kinds.population(kind), "settings": params["unlearn"], "seed": SEED, "device": "cpu"}
    return task | {"threads": params["threads_per_task"], "key": {"forget_set": name}}


def found(out: Path, name: str) -> np.ndarray:
    """k*, the forget set's mean log-likelihood at steps up to it, held-out loss per token on both sides; nats."""
    k_star = pd.read_csv(out / "runs.csv")["k_star"].item()
    rows = pd.read_parquet(out / "log_likelihoods.parquet")
    own = rows[rows["example_id"].isin(ids(name))].groupby("step")["log_likelihood"].mean()
    loss = pd.read_parquet(out / "performance.parquet").query("split == 'heldout'").set_index("step")
    around = loss["log_likelihood_per_token"].loc[[floor(k_star), ceil(k_star)]]
    return np.array([k_star, *own.loc[: ceil(k_star)], *around])


def compare(params: dict, ascents: dict[str, str], older: Path, *, repeats: int, capped: bool) -> pd.DataFrame:
    """One row an ascent: median seconds of both builds, which take turns. RuntimeError: they find different things.

    A build has one process for all ascents. capped: to the instruction set of the study's stages.
    """
    variables, rows = Job(print, threads=1, memory_kept=True, capped=capped).environment(), []
    with ExitStack() as stack:
        options, served = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}, {}
        for build, root in (("before", older), ("after", ROOT)):
            env = variables | {"PYTHONPATH": str(root / "src")}
            served[build] = stack.enter_context(subprocess.Popen([sys.executable, "-c", SERVE], env=env, **options))
        for family, arm in ascents.items():
            task, method = ascent(params, family, arm), params["arms"][arm]
            more = {"before": {"method": method, "followed": params["unlearn"]["followed"]}, "after": {"arm": method}}
            seconds, outs = {b: [] for b in served}, {b: older / f"{b}-{family}" for b in served}
            for build in [*served, *reversed(served)] * (repeats // 2) + [*served] * (repeats % 2):
                print(json.dumps([str(outs[build]), task | more[build]]), file=served[build].stdin, flush=True)
                seconds[build].append(float(served[build].stdout.readline()))
            off = np.abs(np.subtract(*[found(out, task["forget_set"]) for out in outs.values()])).max()
            print(f"{family}, {arm}: {seconds}, largest difference {off:.1g}", flush=True)
            if not off <= NATS:
                raise RuntimeError(f"the builds differ by {off:.1g} in {family}, {arm}")
            before, after = map(np.median, seconds.values())
            rows.append([f"{family}, {arm}" + ", AVX2" * capped, before, after, after / before, repeats])
    return pd.DataFrame(rows, columns=["work", "before_s", "after_s", "ratio", "repeats"])


def main(ascents: dict[str, str] = ASCENTS, *, out: Path = report.RESULTS, repeats: int = 3) -> None:
    """Fetch the older build, time both with and without the cap on instructions, and write build.csv."""
    params = YAML(typ="safe", pure=True).load(Path("params.yaml"))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        archive = ["git", "archive", f"--output={folder}/older.tar", OLDER, "src"]
        subprocess.run(archive, cwd=ROOT, check=True)
        subprocess.run(["tar", "-xf", "older.tar"], cwd=folder, check=True)
        tables = [compare(params, ascents, Path(folder), repeats=repeats, capped=capped) for capped in (True, False)]
    report.write_csv(pd.concat(tables), out / "build.csv")


if __name__ == "__main__":
    main()
