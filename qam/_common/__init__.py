"""Helpers that every other package uses: deadlines, checks, job queues, logging, forks."""
