"""How well new classes are noticed: rules are scored on streams whose truth is known.

Imports schemas, learning, producers, twins."""
