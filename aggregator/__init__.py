"""One model of many: rounds, exact averages and the growing head.

Imports schemas, learning (its parts without torch) and the promises of infra."""
