"""Fill the blocks between the markers of README.md and docs/*.md: no number in them is typed by hand.

The claims notebook writes most blocks into results/tables/claims/readme.md; `time` and `dag` are made here.
`python -m tools.readme --check` only says whether a page is as it would be written: exit status 1 if not.
"""

import re
import sys
from pathlib import Path

from tools.stages import makers, minutes, runs, stages

WRITTEN = Path("results/tables/claims/readme.md")
BLOCK = re.compile(r"<!-- begin ([\w-]+) -->\s*(.*?)\s*<!-- end \1 -->", re.DOTALL)


def time() -> str:
    """Machine, minutes and memory of every stage, as recorded by the runs themselves; a loop of stages is one row."""
    recorded, rows = runs(), dict[str, list[dict]]()
    for name in stages():
        if name in recorded:
            rows.setdefault(name.partition("@")[0], []).append(recorded[name])
    records = [record for group in rows.values() for record in group]
    machines = {f"{r['processor']}, {r['cores']} cores, {r['memory_gib']} GiB memory, {r['system']}" for r in records}
    lines = [f"Together {minutes(records):.0f} minutes, measured on {'; and on '.join(sorted(machines))}.", ""]
    lines += ["| stage | runs | tasks | minutes | largest process, GiB |", "|" + " --- |" * 5]
    for name, group in rows.items():
        tasks, peak = sum(t["count"] for r in group for t in r["tasks"]), max(r["peak_mib"] for r in group) / 1024
        lines.append(f"| `{name}` | {len(group)} | {tasks or '–'} | {minutes(group):.1f} | {peak:.1f} |")
    return "\n".join(lines)


def dag() -> str:
    """The stages as a Mermaid picture that GitHub draws, without the edges that a longer path replaces."""
    order = list(dict.fromkeys(name.partition("@")[0] for name in stages()))
    needs = [(name.partition("@")[0], str(dep)) for name, stage in stages().items() for dep in stage.deps]
    edges = {(out.stage.addressing.partition("@")[0], name) for name, dep in needs for out in makers(dep)}

    def reaches(start: str, goal: str) -> bool:
        return start == goal or any(reaches(b, goal) for a, b in edges if a == start)

    kept = [(a, b) for a, b in edges if not any(c != b and reaches(c, b) for d, c in edges if d == a)]
    kept.sort(key=lambda edge: [order.index(name) for name in edge])
    return "\n".join(["```mermaid", "flowchart LR", *(f"  {a} --> {b}" for a, b in kept), "```"])


def main(arguments: list[str]) -> int:
    """Write the pages, or only compare; 1 with a sentence if one differs or a block has no place or no source."""
    made = {"time": time(), "dag": dag()} | dict(BLOCK.findall(WRITTEN.read_text("utf-8") if WRITTEN.exists() else ""))
    pages = {page: page.read_text(encoding="utf-8") for page in [Path("README.md"), *sorted(Path("docs").glob("*.md"))]}
    shown = [name for text in pages.values() for name, _ in BLOCK.findall(text)]
    wrong = [f"put <!-- begin {n} --> and <!-- end {n} --> into one page, once" for n in made if shown.count(n) != 1]
    wrong += [f"nothing writes the block {n}: run dvc repro claims, or take it out" for n in shown if n not in made]
    for page, text in pages.items() if not wrong else ():
        new = BLOCK.sub(lambda m: f"<!-- begin {m[1]} -->\n\n{made[m[1]]}\n\n<!-- end {m[1]} -->", text)
        if "--check" not in arguments:
            page.write_text(new, encoding="utf-8", newline="\n")
        elif new != text:
            wrong.append(f"{page} does not show the results that are here: python -m tools.readme")
    print(*wrong[:1], sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return min(len(wrong), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
