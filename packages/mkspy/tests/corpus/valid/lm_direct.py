# run: 1
import dspy

lm = dspy.LM("openai/gpt-4o-mini")
dspy.configure(lm=lm)


def raw(prompt: str) -> str:
    return lm(prompt, temperature=0.7)[0]


def chat(text: str) -> list[str]:
    return lm(messages=[{"role": "user", "content": text}])
