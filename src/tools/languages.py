"""Which languages of the default archive can be the source, and at which settings: `python -m tools.languages`.

Writes docs/languages.csv. Each language is read, cleaned and freed of near-duplicates as stage corpus does it, with
params.yaml's target language. What the rest of the split has to hold is counted in pairs, before the limit on tokens.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tools.settings import load
from unlearning.data import corpus as data
from unlearning.data.kinds import KINDS, PILOT_KINDS, draws
from unlearning.data.languages import languages_in
from unlearning.data.scripts import unit_name
from unlearning.errors import StudyError

TABLE = "docs/languages.csv"


def language_row(corpus: Mapping[str, Any], pairs: pd.DataFrame, *, taken: int, seed: int) -> dict[str, Any]:
    """Pairs at every step, the largest `core` that leaves the sets of pairs enough, and the settings at which it works.

    pairs: all of one source language. taken: pairs of the reserve that the sets, populations and the pilot draw.
    """

    def left(threshold: float) -> tuple[int, int]:
        """Pairs without near-duplicates from a threshold on, and the largest core."""
        unique = data.without_near_duplicates(cleaned, threshold=threshold)
        try:
            rest = len(data.split_public(unique, corpus, seed=seed)[1])
        except StudyError:  # too few pairs
            rest = 0
        return len(unique), max(0, rest - corpus["heldout"] - corpus["validation"] - taken)

    cleaned, threshold, core = data.clean(pairs, corpus)[0], corpus["near_duplicate"], corpus["core"]
    unique, largest = left(threshold)
    looser = left(1.0)[1] if largest < core else largest  # pairs that count as one have the same words
    works = {
        "as they are": largest >= core,
        f"corpus.core: {largest}": largest >= core / 4,
        f"near_duplicate: 1.0, core: {min(core, looser)}": looser >= core / 4,
    }
    settings = next((told for told, holds in works.items() if holds), "too few pairs")
    counts = {"pairs": len(pairs), "cleaned": len(cleaned), "without_near_duplicates": unique, "largest_core": largest}
    return {"length_in": unit_name(pairs["source"]), **counts, "settings": settings}


def main() -> None:
    """Write the table."""
    settings = load()
    corpus = settings.corpus.model_dump()
    sets = draws({name: block.model_dump(exclude_none=True) for name, block in settings.forget_sets.items()}).values()
    taken = sum(block["size"] for block in sets if KINDS[block["kind"]]["pairs"])
    taken += sum(size for kind, size in settings.populations.items() if KINDS[kind]["pairs"])
    taken += settings.pilot.size * list(PILOT_KINDS.values()).count("natural")
    archive, rows = data.fetch(corpus), []
    for language in languages_in(archive):
        if language != corpus["target_language"]:
            pairs = data.read_localisation(archive, language, corpus["target_language"])
            rows.append({"language": language, **language_row(corpus, pairs, taken=taken, seed=settings.seed)})
            print(*rows[-1].values(), sep=", ", file=sys.stderr)
    table = pd.DataFrame(rows).sort_values(["largest_core", "language"], ascending=[False, True])
    Path(TABLE).parent.mkdir(exist_ok=True)
    table.to_csv(TABLE, index=False, lineterminator="\n")
    print(f"{TABLE}: {len(table)} languages, {(table['settings'] == 'as they are').sum()} at the settings as they are")


if __name__ == "__main__":
    main()
