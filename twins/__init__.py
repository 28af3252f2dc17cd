"""The digital twin layer: one twin per entity buffers, notices new classes, remembers and trains.

Imports schemas, learning and the promises of infra."""
