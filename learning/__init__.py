"""What is learned: tensors in, tensors out; no device, no logging, no global seed.

Imports nothing of the house."""
