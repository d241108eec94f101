# expect: await
import asyncio

import dspy

ask = dspy.Predict("question -> answer")


async def run(questions):
    return await asyncio.gather(*[ask(question=question) for question in questions])
