"""Locust: users, load shapes, verdicts. The only room that imports locust."""
