"""Serves a model of an MLflow registry through BentoML; `service.py` wires it together."""
