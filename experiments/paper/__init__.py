"""The paper's tables: as recipes, as stored results, theirs beside ours. Imports as experiments."""
