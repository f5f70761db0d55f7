import sys
from pathlib import Path

# The imaginary studies are shared by the tests below this folder.
sys.path.insert(0, str(Path(__file__).parent))
