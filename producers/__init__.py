"""The physical entity layer: data sets and the streams that entities send to their twins.

Imports schemas, learning and the promises of infra."""
