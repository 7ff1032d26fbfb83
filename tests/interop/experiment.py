"""Whether this run is the control experiment, see sut.py."""

from __future__ import annotations

import os
from typing import Final

REFERENCE: Final = os.environ.get("SRPNODE_SUT") == "reference"  # reference introducers in the place of srpnode
