"""`python -m experiments.cli` is `fedtwin`."""

from experiments.cli import main

main()
