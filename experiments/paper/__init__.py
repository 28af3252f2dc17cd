"""The paper's tables: as recipes, as stored results, and theirs beside ours."""
