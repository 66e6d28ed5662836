"""`python -m featx` is the same as the `featx` command."""

from featx.cli import main

main()
