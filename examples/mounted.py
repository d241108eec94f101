"""Programs inside an app of your own: `uvicorn mounted:app`, then open http://127.0.0.1:8000/ai/."""

import dspy
from dspy_cli import create_app
from fastapi import FastAPI

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini"))


class Translate(dspy.Module):
    """Translate a text."""

    def __init__(self) -> None:
        super().__init__()
        self.translate = dspy.ChainOfThought("text, language -> translation")

    def forward(self, text: str, language: str = "French") -> dspy.Prediction:
        return self.translate(text=text, language=language)


programs = create_app([Translate])
app = FastAPI(lifespan=lambda _: programs.router.lifespan_context(programs))
app.mount("/ai", programs)


@app.get("/")
async def index() -> dict[str, str]:
    return {"programs": "/ai/"}
