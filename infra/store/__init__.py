"""Stores of old global models. base.py numbers what each of them promises.

Imports schemas."""
