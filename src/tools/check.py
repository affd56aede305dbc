"""Do the results fit the settings, inputs, code and versions that are here, and the last commit? Nothing is run.

`python -m tools.check` says what does not fit, and what no stage makes (`--clean` removes that).
`--commit` does no more than the comparison with the commit, as after a rerun.

Another processor rounds otherwise, and training amplifies that: the same bytes come from the same kind of machine
alone. What has to hold everywhere is every verdict, and numbers within the tolerances below.
"""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from tools import stages
from tools.doctor import locked

# Largest difference that counts as none. Of estimates, means and their limits: by the unit of their row or table.
UNITS = {"steps": 3.0, "nats per token": 0.05, "nats": 1.0, "rank": 0.1, "AUC": 0.05, "BLEU": 2.0, "share": 0.1}
IN_UNITS = ("estimate", "mean", "low", "high", "delta")
UNIT_OF = {"exposure/k_star": "steps", "trade_off/along": "nats per token", "trade_off/where": "nats per token"}
UNIT_OF |= {"trade_off/bleu": "BLEU"}
# Of all others: by the first pattern that the column's name has. Two runs that differ in data order alone are 2.6 nats
# apart in an example's log-likelihood.
COLUMNS = {"^p$|^p_": 0.1, "^gain$": 0.05, "distance|cosine|share": 0.1, "tpr|clipped": 0.2, "mem_accuracy": 0.15}
COLUMNS |= {"^mem$|difficulty": 0.3, "per_token|lost|loss|auc": 0.05, "accuracy": 0.02, "bleu": 2.0, "n_correct": 4}
COLUMNS |= {"log_likelihood": 8.0, "k_star|^step$": 3.0, "k95": 4.0, "last_step": 6, "step": 3}
OTHERWISE = 1.0  # nats, for every other number
RELATIVE = 0.1  # of the committed value, where that is more
MAY_DIFFER = 0.05  # share of a table's rows that may lie outside; a verdict may not
KEYS = "track trained_with model forget_set family method role step split example_id position left_out epoch kind"
KEYS = set(f"{KEYS} origin arm claim part base column reason unit reference quantity metric family failure".split())


def unfit() -> Iterator[str]:
    """One sentence for each stage, record of a run and file that does not fit."""
    code, ran = dict[str, list[str]](), dict[str, list[str]]()
    for name in (name for name in stages.stages(beside=True) if not stages.never_run(name)):
        yield from (found := list(stages.misfits(name)))
        if not found and (changed := stages.changed_code(name)):
            code.setdefault(", ".join(changed), []).append(name)
    yield from (f"code has changed since {stages.listed(names)} ran: {changed}" for changed, names in code.items())
    lock = locked()
    for stage, record in stages.runs().items():
        other = [f"{name} {version}" for name, version in record["versions"].items() if version != lock.get(name)]
        ran.setdefault(", ".join(other), []).append(stage)
    yield from (f"{stages.listed(who)} ran with {other}, not as locked" for other, who in ran.items() if other)
    yield from (f"no stage makes {path}: make check CLEAN=1 removes it" for path in stages.leftovers())


def remove_leftovers() -> None:
    """Remove what no stage of dvc.yaml makes."""
    for path in stages.leftovers():
        path.unlink()
        print(f"removed {path}")
        with suppress(OSError):  # a folder that holds something
            os.removedirs(path.parent)


def compare_tables(name: str, here: pd.DataFrame, there: pd.DataFrame) -> tuple[bool, str]:
    """Does a table lie outside the tolerances, and what differs, row by row, from its committed twin?"""
    if list(here.columns) != list(there.columns):
        return True, f"has other columns: {', '.join(sorted(set(here) ^ set(there))) or 'another order'}"
    keys = [c for c in here.columns if c in KEYS]
    if not keys or here.duplicated(keys).any() or there.duplicated(keys).any():
        keys = ["row"]
        here, there = (table.assign(row=range(len(table))) for table in (here, there))
    here, there = (table.astype(dict.fromkeys(keys, str)) for table in (here, there))
    values = [c for c in here.columns if c not in keys]
    rows = there.merge(here, on=keys, how="outer", suffixes=(" committed", " here"), indicator=True)
    units = next((rows[c] for c in ("unit", "unit here") if c in rows), [UNIT_OF.get(name, "")] * len(rows))
    differs = pd.DataFrame(index=rows.index)
    for column in values:
        by_name = next((limit for pattern, limit in COLUMNS.items() if re.search(pattern, column)), OTHERWISE)
        by_unit = [next((UNITS[u] for u in UNITS if str(unit).startswith(u)), OTHERWISE) for unit in units]
        limits = np.array(by_unit if column in IN_UNITS and all(units) else by_name)
        differs[column] = _outside(rows[f"{column} here"], rows[f"{column} committed"], limits)
    both = rows["_merge"] == "both"
    bad = differs.any(axis=1) | ~both
    if not bad.any():
        return False, "within tolerance"
    columns = [f"{c} {side}" for c in values if differs[c].any() for side in ("here", "committed")]
    rows["in"] = rows["_merge"].cat.rename_categories({"left_only": "only committed", "right_only": "only here"})
    told = rows.loc[bad, [*keys, "in", *columns]].head(3).to_string(index=False, float_format="{:.4g}".format)
    verdicts = differs.loc[both, [c for c in values if c.endswith("verdict")]].to_numpy().any()
    return bool(verdicts or bad.sum() > MAY_DIFFER * both.sum()), f"{bad.sum()} of {len(rows)} rows differ\n{told}"


def _outside(here: pd.Series, there: pd.Series, limits: np.ndarray) -> np.ndarray:
    """Where two columns differ by more than the tolerance; two missing values are equal."""
    missing = (here.isna() & there.isna()).to_numpy()
    if not all(pd.api.types.is_numeric_dtype(s) and not pd.api.types.is_bool_dtype(s) for s in (here, there)):
        return ~(missing | (here.astype(str) == there.astype(str)).to_numpy())
    a, b = here.to_numpy(dtype=float), there.to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        return ~(missing | (a == b) | (np.abs(a - b) <= np.maximum(limits, RELATIVE * np.abs(b))))


def compare() -> int:
    """Print how tables differ from those of the last commit; how many lie outside the tolerances."""
    git = ["git", "ls-files", "--", "results/tables"]
    if (listed := subprocess.run(git, capture_output=True, text=True)).returncode:
        print("no git here: not compared with a commit")
        return 0
    tables = {name for name in listed.stdout.splitlines() if name.endswith((".csv", ".parquet"))}
    git = ["git", "diff", "--name-only", "--relative", "--diff-filter=MD", "HEAD", "--", "results/tables"]
    changed = tables & set(subprocess.run(git, capture_output=True, text=True).stdout.splitlines())
    missing = sorted(name for name in tables if not Path(name).exists())
    bad = len(missing)
    for name in sorted(changed - set(missing)):
        committed = subprocess.run(["git", "show", f"HEAD:./{name}"], capture_output=True, check=True).stdout
        read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
        short = name.removeprefix("results/tables/").rpartition(".")[0]
        fails, told = compare_tables(short, read(name), read(io.BytesIO(committed)))
        bad += fails
        print(f"{'DIFFERS' if fails else 'ok     '} {name}: {told}")
    if missing:
        print(f"MISSING {stages.listed(missing)}")
    print(f"{len(tables)} tables: {len(tables - changed)} byte for byte as committed, {bad} outside the tolerances")
    return bad


def main(arguments: list[str]) -> int:
    """Print what does not fit; 1 if anything."""
    if "--clean" in arguments:
        remove_leftovers()
    if "--commit" in arguments:  # after a rerun: is it what was committed?
        return int(compare() > 0)
    found = list(unfit())
    print("\n".join(found) or "every result fits its settings, inputs, code and versions")
    return int(compare() > 0 or bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
