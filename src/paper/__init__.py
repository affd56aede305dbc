"""From committed tables to figures, readings and verdicts. Imports no torch."""
