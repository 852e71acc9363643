"""The folder of golden numbers computed with the published reference: `SFVQA_GOLDEN`, or the one beside this file."""

import os
from pathlib import Path

GOLDEN = Path(os.environ.get("SFVQA_GOLDEN") or Path(__file__).parent / "golden")
