"""Transports: logs of one-partition topics. base.py numbers what each of them promises.

Imports schemas."""
