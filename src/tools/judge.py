"""Did unlearning work? From anybody's log-likelihoods: exposure with its noise floor and a verdict a forget set.

    python -m tools.judge RESULTS

RESULTS is a CSV or Parquet file, or a folder of them, with one row a model and example: `role` (before, after or
reference), `model`, `forget_set`, `example_id`, `log_likelihood` (nats, of the whole target), perhaps `n_tokens`. A
reference never saw the set. A set named never-<set>, or never, holds texts of its kind that no model saw.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.core import genex
from unlearning.errors import StudyError

KEYS = ["role", "model", "forget_set", "example_id"]
ROLES = ("before", "after", "reference")
NEVER, WORST = "never", 5  # how sets of never-seen texts begin; examples that are printed
COLUMNS = ["forget_set", "verdict", "genex", "floor", "before", "instance", "outside", "examples", "reason"]


def read(path: Path | str) -> pd.DataFrame:
    """The rows of a file, or of all files of a folder; StudyError where they cannot be judged."""
    path = Path(path)
    files = sorted(p for p in path.iterdir() if p.suffix in (".csv", ".parquet")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise StudyError(f"{path}: there is no CSV or Parquet file; docs/judge.md shows one")
    tables = []
    for file in files:
        table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
        if lacking := {*KEYS, "log_likelihood"} - set(table):
            raise StudyError(f"{file}: there is no column {', '.join(sorted(lacking))}; docs/judge.md shows all")
        values = pd.to_numeric(table["log_likelihood"], errors="coerce")
        for wrong, mend in (
            (~table["role"].isin(ROLES), f"role is none of {', '.join(ROLES)}"),
            (values.isna() & table["log_likelihood"].notna(), "log_likelihood is no number"),
            (values > 0, "log_likelihood is above zero; write log-likelihoods, not losses"),
        ):
            if wrong.any():
                raise StudyError(f"{file}, line {np.argmax(wrong) + 2}: {mend}")
        tables.append(table.assign(log_likelihood=values))
    table = pd.concat(tables, ignore_index=True)
    if (twice := table.duplicated(KEYS)).any():
        row = table[twice].iloc[0]
        raise StudyError(f"{path}: {row['role']} {row['model']} has {row['example_id']} twice; keep one of them")
    return table


def judge(table: pd.DataFrame, *, confidence: float = 0.95) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every forget set of what `read` gives: COLUMNS; and every example: forget_set, example_id, genex, floor.

    genex: mean over examples; floor: its half-width; before: GenEx then; instance: GenEx minus that of never-seen
    texts; all in nats. outside: share of examples beyond their own floors. reason: what is not said, and why.
    """
    groups = {str(name): rows for name, rows in table.groupby("forget_set", sort=False, observed=True)}
    sets, examples = [], []
    for name, rows in groups.items():
        if name.split("-")[0] != NEVER:
            row, found = _judge_set(rows, groups.get(f"{NEVER}-{name}", groups.get(NEVER)), confidence)
            sets.append({"forget_set": name, **row})
            examples.append(found.assign(forget_set=name))
    found = [pd.DataFrame(columns=["forget_set", "example_id", "genex", "floor"]), *(x for x in examples if len(x))]
    return pd.DataFrame(sets, columns=COLUMNS), pd.concat(found[1:] or found, ignore_index=True)[list(found[0])]


def _judge_set(rows: pd.DataFrame, never: pd.DataFrame | None, confidence: float) -> tuple[dict, pd.DataFrame]:
    ids, scores, why = _by_role(rows)
    before, after, reference = scores
    row = {"verdict": "not judged", "examples": len(ids)}
    if "n_tokens" in rows and rows.groupby("example_id", observed=True)["n_tokens"].nunique().max() > 1:
        why = ["models count other tokens in one example: another tokenizer, so sums do not compare"]
    elif not len(after) or len(reference) < 2:
        why += ["no model after unlearning"] * (not len(after))
        why += ["fewer than two references: how much models differ is not known"] * (len(reference) < 2)
    elif len(ids):
        size = {"n_unlearned": len(after), "n_reference": len(reference), "confidence": confidence}
        exposure = genex.generalized_exposure(unlearned=after, reference=reference, estimator="mean_log")
        floors = genex.noise_floor(reference_sd=reference.std(axis=0, ddof=1), **size)
        spread = reference.mean(axis=1).std(ddof=1)
        floor = float(genex.noise_floor(reference_sd=np.array([spread]), **size, shrink=False)[0])
        row |= {"genex": exposure.mean(), "floor": floor, "outside": np.mean(np.abs(exposure) > floors)}
        row |= {"before": np.mean(before.mean(axis=0) - reference.mean(axis=0))} if len(before) else {}
        why += [] if len(before) else ["not scored before unlearning"]
        alike = _by_role(never)[1] if never is not None else scores
        if never is None or not all(side.size for side in alike[1:]):
            why.append("no never-seen texts of its kind: what these lose as well is not known")
        else:
            row["instance"] = row["genex"] - (alike[1].mean() - alike[2].mean())
        if spread > 0:
            row["verdict"], more = _verdict(row, reference, confidence)
            why += more
        else:
            why.append("references are equal: no floor")
        return row | {"reason": "; ".join(why)}, pd.DataFrame({"example_id": ids, "genex": exposure, "floor": floors})
    return row | {"reason": "; ".join(why)}, pd.DataFrame()


def _by_role(rows: pd.DataFrame) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    # ids of the examples that every model has; (models, examples) before, after, of references; what was left out
    wide = rows.pivot(index=["role", "model"], columns="example_id", values="log_likelihood").astype(float)
    whole = np.isfinite(wide.to_numpy()).all(axis=0)
    why = [] if whole.all() else [f"{(~whole).sum()} of {len(whole)} examples left out: not finite in every model"]
    at, values = wide.index.get_level_values("role"), wide.to_numpy()[:, whole]
    return wide.columns[whole].to_numpy(), [values[at == role] for role in ROLES], why


def _verdict(row: dict, reference: np.ndarray, confidence: float) -> tuple[str, list[str]]:
    if abs(row["genex"]) > row["floor"]:
        return ("exposed" if row["genex"] > 0 else "over-unlearned"), []
    if row["examples"] == 1 or len(reference) < 3:
        return "as if never seen", ["one example, or two references: how examples scatter is not known"]
    shares = []  # of examples outside, of each reference judged by the others
    for i, own in enumerate(reference):
        others = np.delete(reference, i, axis=0)
        size = {"n_unlearned": 1, "n_reference": len(others), "confidence": confidence}
        floors = genex.noise_floor(reference_sd=others.std(axis=0, ddof=1), **size)
        shares.append(np.mean(np.abs(own - others.mean(axis=0)) > floors))
    if row["outside"] <= max(shares):
        return "as if never seen", []
    return "as if never seen", [f"on average only: no reference has more than {max(shares):.0%} of examples outside"]


def main(arguments: Sequence[str]) -> int:
    """Print verdicts, what they leave open and the worst examples; 1 with one message for bad input, 2 without any."""
    if len(arguments) != 1:
        print("usage: python -m tools.judge RESULTS", file=sys.stderr)
        return 2
    try:
        sets, examples = judge(read(arguments[0]))
    except (StudyError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    form = {"index": False, "float_format": "{:.2f}".format, "na_rep": "–"}
    print("GenEx, nats: log-likelihood after unlearning minus that of models that never saw the set. Inside its")
    print("floor: as if never seen. Above: exposed. Below: over-unlearned, which gives a set away just as well.\n")
    print(sets.drop(columns="reason").to_string(**form) if len(sets) else "There is no forget set.", end="\n\n")
    print(*(f"{row.forget_set}: {row.reason}." for row in sets.itertuples() if row.reason), sep="\n")
    if len(examples):
        beyond = examples["genex"].abs() / examples["floor"].clip(lower=1e-9)
        print("\nFurthest beyond their own floors:")
        print(examples.loc[beyond.nlargest(WORST).index].to_string(**form))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
