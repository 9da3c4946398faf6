"""The prediction log: each answered row, in Parquet files.

    worker ── notes a request ──▶ queue ── a thread encodes it ──▶ socket
                                                                     │
    writer (one per service) ── appends ──▶ <folder>/.journal/NAME.journal ── fsync once a second
                │ starts, when the journal is large or old                │
                ▼                                                         ▼
    converter (gone after it) ──▶ <folder>/model=…/version=…/date=…/NAME-0.parquet

Workers neither wait for the disk nor need access to it. Only the converter imports pyarrow. Messages have the same form
on the socket and in the journal (`frames`, `rows`), so whatever reached the journal survives a crash: a later start of
any service with this folder converts the journals that no running writer holds.
"""
