"""What the experiments found, in the repository: records of every score, shipped weights with a card each, pictures."""

from pathlib import Path

RESULTS = Path(__file__).parent
RECORDS, WEIGHTS, CARDS = RESULTS / "records", RESULTS / "weights", RESULTS / "cards"
