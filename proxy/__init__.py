"""The memory: rebuilds prototypes from gradients and picks the old model that teaches.

Imports schemas, learning and the promises of infra."""
