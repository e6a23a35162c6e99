"""Prefect: chains the rooms into flows, deployments and event triggers. The only room that imports it."""

# The flows that a runner serves, each as a deployment of the problem's name.
DEPLOYMENTS = ("monitor", "drill", "retrain", "lifecycle", "report")
