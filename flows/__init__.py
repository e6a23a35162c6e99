"""Prefect: chains the rooms into flows, deployments and event triggers. The only room that imports it."""
