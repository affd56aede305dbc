"""Every formula of the study, at one address each: pure functions of arrays, NumPy and SciPy only."""
