"""One process of a job: python -m benchmarks.worker FOLDER '["module:function", {options}]' THREADS

It warms up on a little of the work and says so. Then, for each pair of lines on its input: the first has it set up,
the second has it start. It answers with one line each time. What libraries print goes to the error output.
"""

import importlib
import json
import os
import sys


def main() -> None:
    """Serve until the input ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    folder, (function, options), threads = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])

    import torch

    from benchmarks.clock import held, with_peak
    from benchmarks.workloads import load

    def say(what: object) -> None:
        channel.write(json.dumps(what) + "\n")
        channel.flush()

    torch.set_num_threads(threads)
    module, _, name = function.partition(":")
    set_up, work = getattr(importlib.import_module(module), name), load(folder)
    loaded = held(work.device)
    set_up(work.small(), **options)()
    say("warm")
    for _ in sys.stdin:
        run = set_up(work, **options)
        say("ready")
        if not sys.stdin.readline():
            break
        span, peak = with_peak(run, work.device)
        say({"span": [span.started, span.ended, span.units], "peak_mib": peak - loaded})
        del run


if __name__ == "__main__":
    main()
