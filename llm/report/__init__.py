"""What a person reads of runs afterwards: a run's report, runs compared, scores; one HTML file each."""
