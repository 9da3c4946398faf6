"""The sync process: one per service, it prepares models and tells the workers which to serve.

    bentoml serve (parent) ── starts ──▶ sync ── starts ──▶ prepare (one attempt, then gone)
                                          │ writes                       ▲ reads
                                          ▼                              │
                              <run directory>/state.json       <run directory>/workers/*.json
                                          ▲ each worker looks            │ each worker writes

It stays small: mlflow, scikit-learn and pandas are in memory only while an attempt runs, in the attempt's process.
Between two rounds it sleeps until the polling interval is over or `POST /v1/sync` wakes it. It ends with the parent,
whose exit closes its standard input.
"""
