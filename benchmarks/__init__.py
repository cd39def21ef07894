"""Speed, quality and what the server survives. Each script writes what it measured to `results/`."""
