"""What several test modules share: fabricated runs, the command, a training, Slurm, the browser.

No test module imports another, and nothing but tests imports these.
"""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent  # of the checkout
