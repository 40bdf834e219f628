"""Is this file system good enough?  `far` is what every host runs, `rounds` asks them in turns, `judge` says what it means."""
