"""The outside world: transports, stores, worker processes and the one loop that serves a role.

Imports schemas."""
