"""What the experiments found, in the repository: records of every score, weights that are shipped, pictures."""

from pathlib import Path

RESULTS = Path(__file__).parent
RECORDS, WEIGHTS = RESULTS / "records", RESULTS / "weights"
