"""Runs over real Kafka and Redis, each role a process, killed, paused and cut off."""
