"""What columns and tables can be called."""

IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]{0,299}"
TABLE = rf"(?:[a-z][a-z0-9:.-]{{1,99}}\.)?{IDENTIFIER}\.[A-Za-z0-9_]{{1,1024}}"
