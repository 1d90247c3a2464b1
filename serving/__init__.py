"""The needs of every HTTP answer: log line and errors, the key, bounded bodies, the status page."""
