"""`python -m mkspy`."""

from mkspy.cli import main

main()
