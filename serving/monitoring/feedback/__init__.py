"""The truth loop: truths arrive days after the answers, and tell how right these were.

    worker ── POST /v1/feedback, unread ──▶ socket ──▶ keeper (one per service) ──▶ store: SQLite or PostgreSQL
                                                         │ follows the journals       ▲           │
    prediction log ─────────────────────────────────────┘ of the prediction log ─────┘           ▼
    worker ◀── /v1/quality, /metrics ── <run directory>/quality.json ◀── evaluator (gone after it)

The store has the outputs of the logged rows, without their inputs, so that a request id is found at once. They come from the
log: whatever the store has missed while it was away is read from there.
"""
