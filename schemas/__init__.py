"""What travels: messages, topics, codec, errors, and the configuration that RunOpened holds.

Imports nothing of the house."""
