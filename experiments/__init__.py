"""The roof: recipes, the system in one process, the observer, the report and the command line.

Imports all."""
