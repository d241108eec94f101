# run: 1
import asyncio

import dspy


async def run(session, request: str):
    tools = await session.list_tools()
    dspy_tools = [dspy.Tool.from_mcp_tool(session, tool) for tool in tools.tools]
    react = dspy.ReAct("request -> result", tools=dspy_tools)
    outcome = await react.acall(request=request)
    return outcome.result


if __name__ == "__main__":
    asyncio.run(run(None, "help"))
