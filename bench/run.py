"""Runs the bench from anywhere: `python bench/run.py`. What it does stands in main.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from bench.main import main

    sys.exit(main())
