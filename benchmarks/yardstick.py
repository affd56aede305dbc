"""The machine's yardstick: how fast a large matrix product is here."""

import time


def reference_gflops(dtype: str, *, size: int = 2048, repeats: int = 5) -> float:
    """GFLOP/s of a size x size matrix product with all threads, to three digits.

    The median of `repeats` products; one alone where the first took over ten seconds (bfloat16 on a processor
    that has no instructions for it).
    """
    import torch

    left, right = (torch.ones(size, size, dtype=getattr(torch, dtype)) for _ in range(2))
    seconds: list[float] = []
    while len(seconds) <= repeats:
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
        if seconds[0] > 10:
            break
    median = sorted(seconds[1:] or seconds)[len(seconds[1:]) // 2]
    return float(f"{2 * size**3 / median / 1e9:.3g}")
