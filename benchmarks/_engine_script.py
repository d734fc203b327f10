"""What `engine.py` and `memory.py` measure: files through the scoring engine, in a process of its own.

_engine_script.py KIND TARGET SOURCE...
"""

import sys
from pathlib import Path

from _common import constants, load_model

from nightscore.scoring.files import score_file

kind, target, *sources = sys.argv[1:]
model = load_model(kind)
found = score_file(model, [Path(s) for s in sources], Path(target), keys=["id"], constants=constants("model/1"))
print(found["rows"])
