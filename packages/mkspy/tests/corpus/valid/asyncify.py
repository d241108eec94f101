# run: 1
import dspy

program = dspy.ChainOfThought("question -> answer")
async_program = dspy.asyncify(program)


async def handle(question: str) -> dict:
    result = await async_program(question=question)
    return {"answer": result.answer, "reasoning": result.reasoning}
