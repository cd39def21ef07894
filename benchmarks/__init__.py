"""Speed, measured as ratios within one run. Each script writes what it measured to `results/`."""
