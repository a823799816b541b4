"""What everything else stands on: deadlines, checks, logging, forks."""
