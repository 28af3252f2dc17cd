"""Real services without containers: a Kafka broker and a Redis server as child processes.

Imports schemas."""
