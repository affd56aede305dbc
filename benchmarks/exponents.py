"""How time and memory grow: the slope of a line in a log-log plot, with its standard error."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike


def exponent(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """(p, standard error of p) of y = c x^p, by least squares of log y on log x; all numbers above 0.

    Two points alone have no error (NaN).
    """
    x, y = np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))
    x, y = x - x.mean(), y - y.mean()
    slope = x @ y / (x @ x)
    left = np.square(y - slope * x).sum()
    return float(slope), float(np.sqrt(left / (len(x) - 2) / (x @ x))) if len(x) > 2 else float("nan")


def exponents(points: pd.DataFrame) -> pd.DataFrame:
    """One row a factor: from, to, exponent and standard error of seconds and of peak memory.

    Args:
        points: factor, value, repeat (from 0), seconds, peak_mib (of the first repeat; a later one knows no growth).
    """
    rows = []
    for factor, mine in points.groupby("factor", sort=False):
        row = {"factor": factor, "from": mine["value"].min(), "to": mine["value"].max()}
        row["time_exponent"], row["time_error"] = exponent(mine["value"], mine["seconds"])
        first = mine[mine["repeat"] == 0]
        row["memory_exponent"], row["memory_error"] = exponent(first["value"], first["peak_mib"].clip(lower=0.1))
        rows.append(row)
    return pd.DataFrame(rows)
