"""`python -m streamll`."""

from streamll.cli import main

main()
