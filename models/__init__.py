"""scikit-learn, torch, ONNX: train, calibrate, export. MLflow: track, register, alias (tracking.py)."""
