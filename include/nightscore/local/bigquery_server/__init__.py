"""Our launcher of PyPI `local-bigquery`; runs in the server's own environment and never imports nightscore."""
