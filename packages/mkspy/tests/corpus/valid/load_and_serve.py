# run: 1
import os
from contextlib import asynccontextmanager

import dspy
from pydantic import BaseModel

program = dspy.ChainOfThought("question -> answer")
if os.path.exists("program.json"):
    program.load("program.json")


class Question(BaseModel):
    text: str


@asynccontextmanager
async def lifespan(app):
    dspy.configure(lm=dspy.LM(os.environ["MODEL"]), async_max_workers=4)
    yield


def make_app():
    from fastapi import FastAPI, HTTPException

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(question: Question):
        try:
            result = await program.acall(question=question.text)
            return {"status": "success", "data": result.toDict()}
        except Exception as e:
            raise HTTPException(status_code=500, detail=str(e)) from e

    return app
