"""The minimum for FastAPI with a validated body: returns it."""

from fastapi import FastAPI

from benchmarks.services.body import make_body

Body = make_body()
app = FastAPI()


@app.post("/predict")
async def echo(body: Body) -> Body:  # type: ignore[valid-type]  # made at run time
    """Returns the validated body."""
    return body


@app.get("/health")
async def health() -> dict[str, str]:
    """Returns 200 once the server is up."""
    return {"status": "ok"}
