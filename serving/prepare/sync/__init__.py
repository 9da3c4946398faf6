"""The sync process: one per service, it gets models ready and tells the workers which answer.

    bentoml serve (parent) ── starts ──▶ sync ── starts ──▶ prepare (one attempt, then gone)
                                          │ writes                       ▲ reads
                                          ▼                              │
                              <run directory>/state.json       <run directory>/workers/*.json
                                          ▲ each worker looks            │ each worker writes

It stays small: mlflow, scikit-learn and pandas are in memory only while an attempt runs, in the process of
the attempt. Between two rounds it sleeps until the time is over or `POST /v1/sync` wakes it. It ends with the
parent, whose end closes its standard input.
"""
