# arun: Answer().acall(question="q")
import asyncio

import dspy


class Answer(dspy.Module):
    def __init__(self):
        super().__init__()
        self.generate = dspy.ChainOfThought("question -> answer")
        self.simplify = dspy.Predict("answer -> simplified_answer")

    async def aforward(self, question, **kwargs):
        answer = await self.generate.acall(question=question)
        return await self.simplify.acall(answer=answer.answer)


async def main():
    result = await Answer().acall(question="What is 2+2?")
    print(result.simplified_answer)


if __name__ == "__main__":
    asyncio.run(main())
