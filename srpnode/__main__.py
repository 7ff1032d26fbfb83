"""python -m srpnode"""

import sys

from srpnode.cli import main

sys.exit(main())
