import asyncio

import dspy
import httpx


async def fetch(url: str) -> str:
    """Fetch a page."""
    async with httpx.AsyncClient() as client:
        response = await client.get(url)
        return response.text


async def amain():
    agent = dspy.ReAct("question -> answer", tools=[fetch])
    result = await agent.acall(question="What is on example.com?")
    print(result.answer)


if __name__ == "__main__":
    asyncio.run(amain())
