"""`python -m modelyard`, the same as the command `modelyard`."""

from modelyard.cli import main

main()
