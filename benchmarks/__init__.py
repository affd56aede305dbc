"""How fast the study's code is, compared with what others would write for the same work (README.md)."""
