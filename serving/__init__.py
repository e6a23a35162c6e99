"""BentoML: the prediction service. The only room that imports bentoml. It knows no MLflow and needs no torch."""
