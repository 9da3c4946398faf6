"""Logs and registers models with an older MLflow, and writes down what that MLflow says of them.

Runs in the environment of that MLflow: python log_models.py URI ANSWERS
"""

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_wine
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

uri, file = sys.argv[1:]
mlflow.set_tracking_uri(uri)
mlflow.set_experiment("old")
client = mlflow.MlflowClient()
X, y = load_wine(return_X_y=True, as_frame=True)
models = {
    "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    "forest": RandomForestClassifier(20, random_state=0),
    "boosted": GradientBoostingRegressor(n_estimators=20, random_state=0),
}
answers = {}
for name, model in models.items():
    model.fit(X, y)
    for _ in range(2):
        with mlflow.start_run():
            mlflow.sklearn.log_model(
                model,
                "model",
                registered_model_name=name,
                signature=infer_signature(X, model.predict(X)),
                input_example=X.head(5),
                pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
            )
    client.transition_model_version_stage(name, "1", "Production")
    if hasattr(client, "set_registered_model_alias"):
        client.set_registered_model_alias(name, "blue", "2")
    answers[name] = {
        "pyfunc": np.asarray(mlflow.pyfunc.load_model(f"models:/{name}/1").predict(X)).tolist(),
        "probabilities": model.predict_proba(X).tolist() if hasattr(model, "predict_proba") else None,
    }
Path(file).write_text(
    json.dumps({"rows": X.to_dict("records"), "answers": answers, "sklearn": sklearn.__version__})
)
