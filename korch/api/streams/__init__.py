"""What lasts: logs, programs in containers, ports of pods. Each runs on SSH connections of the API's own."""
