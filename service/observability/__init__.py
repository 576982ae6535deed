"""What an operator sees of the running service: metrics, log lines with request ids, and traces."""
