"""One route that streams a program, in any ASGI framework: `uvicorn sse_route:app`.

curl -N 'http://127.0.0.1:8000/ask?question=Why%20is%20the%20sky%20blue%3F'
"""

import dspy
import streamll
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini"))
program = dspy.ChainOfThought("question -> answer")


async def ask(request: Request) -> StreamingResponse:
    frames = streamll.sse(program, question=request.query_params["question"])
    return StreamingResponse(frames, media_type="text/event-stream")


app = Starlette(routes=[Route("/ask", ask)])
