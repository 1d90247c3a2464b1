"""What every HTTP answer needs: log line and errors, the key, bounded bodies, the status page."""
