"""Are the results that lie here those of a commit? Verdicts the same, numbers within stated tolerances.

Another processor rounds otherwise, and training amplifies that; the same bytes can only be expected on the
same kind of machine. What has to hold everywhere: every verdict, and numbers within the tolerances below.
"""

import argparse
import io
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from unlearning.errors import StudyError

TABLES = Path("results/tables")

# Largest difference that counts as none. Estimates, means and their limits: by unit, that of the row or of the table.
UNITS = {
    "steps": 3.0,
    "nats": 1.0,
    "nats per token": 0.05,
    "rank correlation": 0.1,
    "AUC": 0.05,
    "BLEU": 2.0,
    "share": 0.1,
}
IN_UNITS = ("estimate", "mean", "low", "high", "delta")
UNIT_OF = {
    "exposure_k_star.csv": "steps",
    "trade_off_along.csv": "nats per token",
    "trade_off_where.csv": "nats per token",
    "trade_off_bleu.csv": "BLEU",
}
# All others by column: the first entry that is the column's name, or whose text stands in it.
# Nats of one example: two runs that differ in data order alone are 2.6 nats apart.
NAMES = {"p": 0.1, "p_holm": 0.1, "p_sign_flip": 0.1, "gain": 0.05, "distance": 0.1, "tpr": 0.2}
NAMES |= {"mem": 0.3, "mem_accuracy": 0.15, "difficulty": 0.3}
TOLERANCES = {
    "per_token": 0.05,  # nats per token
    "lost": 0.05,
    "accuracy": 0.02,
    "bleu": 2.0,
    "log_likelihood": 8.0,  # nats of one example
    "n_correct": 4,
    "k_star": 3.0,  # steps
    "k95": 4.0,
    "last_step": 6,
    "step": 3,
    "loss": 0.05,
    "auc": 0.05,
    "cosine": 0.1,
    "share": 0.1,
    "clipped": 0.2,
}
OTHERWISE = 1.0  # nats, for every other number
RELATIVE = 0.1  # of the committed value, where that is more
MAY_DIFFER = 0.05  # share of a table's rows that may lie outside; a verdict may not
KEYS = (  # noqa: SIM905
    "track trained_with model forget_set method role step split example_id left_out epoch kind origin arm claim "
    "base column reason unit reference quantity"
).split()
VERDICTS = ("verdict", "claim_verdict")


@dataclass
class Difference:
    """What was found in one table."""

    table: str
    verdict: str = "same bytes"
    fails: bool = False
    rows: list[str] = field(default_factory=list)


def committed(path: Path, revision: str) -> bytes | None:
    """A file as it stands in a commit, None when it is not there."""
    found = subprocess.run(["git", "show", f"{revision}:./{path.as_posix()}"], capture_output=True)
    return found.stdout if found.returncode == 0 else None


def read(data: bytes, suffix: str) -> pd.DataFrame:
    """A table from its bytes, categories as text."""
    table = pd.read_parquet(io.BytesIO(data)) if suffix == ".parquet" else pd.read_csv(io.BytesIO(data))
    text = [c for c in table.columns if isinstance(table[c].dtype, pd.CategoricalDtype)]
    return table.astype(dict.fromkeys(text, str))


def tolerance(column: str, unit: str = "") -> float:
    """The largest difference in a column that counts as none, in the unit of the row or table if it has one."""
    if unit and column in IN_UNITS:
        return next((t for name, t in UNITS.items() if unit == name or unit.startswith(f"{name} of")), OTHERWISE)
    return NAMES.get(column) or next((t for part, t in TOLERANCES.items() if part in column), OTHERWISE)


def _limits(column: str, table: str, rows: pd.DataFrame) -> np.ndarray:
    """The tolerance of a column in each row."""
    named = next((rows[c] for c in ("unit", "unit committed") if c in rows), [UNIT_OF.get(table, "")] * len(rows))
    return np.array([tolerance(column, str(unit)) for unit in named])


def compare_tables(name: str, here: pd.DataFrame, there: pd.DataFrame, *, show: int = 5) -> Difference:
    """Compare a table with its committed twin, row by row.

    Args:
        name: of the table, for the report.
        here: as it lies here.
        there: as committed.
        show: how many differing rows to name.
    """
    found = Difference(name)
    if list(here.columns) != list(there.columns):
        odd = sorted(set(here.columns) ^ set(there.columns))
        return Difference(name, f"other columns: {', '.join(odd) or 'another order'}", True)
    keys = _keys(here, there)
    both = there.merge(here, on=keys, how="outer", suffixes=(" committed", " here"), indicator=True)
    alone = both[both["_merge"] != "both"]
    both = both[both["_merge"] == "both"]
    values = [c for c in here.columns if c not in keys]
    limits = {c: _limits(c, name, both) for c in values}
    outside = {c: _outside(both[f"{c} here"], both[f"{c} committed"], limits[c]) for c in values}
    bad = pd.DataFrame(outside, index=both.index).any(axis=1) if values else pd.Series(False, index=both.index)
    for index in both.index[bad][:show]:
        found.rows.append(_tell(both.loc[index], keys, [c for c in values if outside[c][index]]))
    found.rows += [f"{_name(row, keys)}: only {_side(row)}" for _, row in alone.head(show).iterrows()]
    changed = int(bad.sum()) + len(alone)
    allowed = MAY_DIFFER * len(both)
    verdicts = any(bool(outside[c].any()) for c in values if c in VERDICTS)
    found.fails = changed > allowed or verdicts
    found.verdict = f"{changed} of {len(both) + len(alone)} rows differ" if changed else "within tolerance"
    return found


def _keys(here: pd.DataFrame, there: pd.DataFrame) -> list[str]:
    """Columns that name a row, in both tables uniquely; else the row's number (added to both as `row`)."""
    keys = [c for c in here.columns if c in KEYS]
    if not keys or here.duplicated(keys).any() or there.duplicated(keys).any():
        keys = ["row"]
        for table in (here, there):
            table["row"] = range(len(table))
    for key in keys:
        if here[key].dtype != there[key].dtype:
            here[key], there[key] = here[key].astype(str), there[key].astype(str)
    return keys


def _outside(here: pd.Series, there: pd.Series, limit: np.ndarray) -> pd.Series:
    """Where two columns differ by more than the tolerance; two missing values are equal."""
    numbers = [pd.to_numeric(s, errors="coerce") for s in (here, there)]
    textual = not all(pd.api.types.is_numeric_dtype(s) and not pd.api.types.is_bool_dtype(s) for s in (here, there))
    both_missing = here.isna() & there.isna()
    if textual:
        return ~(both_missing | (here.astype(str) == there.astype(str)))
    a, b = (n.to_numpy(dtype=float) for n in numbers)
    with np.errstate(invalid="ignore"):
        close = (a == b) | (np.abs(a - b) <= np.maximum(limit, RELATIVE * np.abs(b)))
    return pd.Series(~(close | both_missing.to_numpy()), index=here.index)


def _name(row: pd.Series, keys: list[str]) -> str:
    return ", ".join(f"{k} {row[k]}" for k in keys if str(row[k]) not in ("", "nan"))


def _side(row: pd.Series) -> str:
    return "committed" if row["_merge"] == "left_only" else "here"


def _tell(row: pd.Series, keys: list[str], columns: list[str]) -> str:
    changes = [f"{c} {_short(row[f'{c} here'])} (committed {_short(row[f'{c} committed'])})" for c in columns]
    return f"{_name(row, keys)}: {'; '.join(changes)}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def compare(revision: str = "HEAD", only: list[str] | None = None) -> list[Difference]:
    """Compare every table that lies here or in the commit.

    Args:
        revision: the commit.
        only: paths (files or folders) to look at; all of results/tables by default.

    Raises:
        StudyError: there is no git, or no such commit.
    """
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", revision, "--", TABLES.as_posix()], capture_output=True, text=True
    )
    if listed.returncode:
        raise StudyError(f"cannot read commit {revision}: {listed.stderr.strip() or 'is git here?'}")
    paths = {Path(p) for p in listed.stdout.splitlines()} | {p for p in TABLES.rglob("*") if p.is_file()}
    if only is not None:
        chosen = {Path(o) for o in only}
        paths = {p for p in paths if p in chosen or chosen & set(p.parents)}
    return [_compare_file(p, revision) for p in sorted(paths) if p.suffix in (".csv", ".parquet")]


def _compare_file(path: Path, revision: str) -> Difference:
    there = committed(path, revision)
    name = path.relative_to(TABLES).as_posix()
    if there is None:
        return Difference(name, f"not in {revision}")
    if not path.exists():
        return Difference(name, "is missing here", True)
    here = path.read_bytes()
    if here == there:
        return Difference(name)
    return compare_tables(name, read(here, path.suffix), read(there, path.suffix))


def report(differences: list[Difference]) -> int:
    """Print one line a table, its differing rows below; 1 if any lies outside the tolerances."""
    for d in differences:
        print(f"{'DIFFERS ' if d.fails else 'ok      '}{d.table}: {d.verdict}")
        for row in d.rows:
            print(f"            {row}")
    bad = [d for d in differences if d.fails]
    same = sum(d.verdict == "same bytes" for d in differences)
    print(f"\n{len(differences)} tables: {same} byte for byte the same, {len(bad)} outside the tolerances")
    agree = f"Verdicts are the same; in each table at most {MAY_DIFFER:.0%} of rows lie outside the tolerances."
    print("Differs from the commit." if bad else agree)
    return min(len(bad), 1)


def main(arguments: list[str] | None = None) -> int:
    """Command line: [--revision R] [PATH …]."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="HEAD")
    parser.add_argument("paths", nargs="*", help="tables or folders to look at (default: all)")
    options = parser.parse_args(arguments)
    try:
        return report(compare(options.revision, options.paths or None))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
