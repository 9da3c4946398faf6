"""The least that FastAPI can do with a body that is checked: send it back."""

from fastapi import FastAPI

from benchmarks.services.body import make_body

Body = make_body()
app = FastAPI()


@app.post("/predict")
async def echo(body: Body) -> Body:  # type: ignore[valid-type]  # made at run time
    """Answers with the body as it was validated."""
    return body


@app.get("/health")
async def health() -> dict[str, str]:
    """Tells that the server is there."""
    return {"status": "ok"}
