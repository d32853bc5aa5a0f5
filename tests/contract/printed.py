"""Optimizer classes that docs/extending.md prints, made from the page."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"

for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S):
    if "(torch.optim.Optimizer)" in block:
        exec(compile(block, str(PAGE), "exec"))

#: The classes, and nothing that their blocks import.
_OWN = {name: kind for name, kind in vars().items() if getattr(kind, "__module__", 0) == __name__}
for _name in [name for name in vars() if name[0].isupper() and name not in _OWN]:
    del globals()[_name]
