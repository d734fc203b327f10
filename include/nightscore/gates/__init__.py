"""The gates: what must hold of the frozen rows before scoring, and of the staged predictions before publishing."""
