"""The thin module behind the notebooks."""
