# run: 1
import datetime

import dspy


class MemoryTools:
    """Tools for interacting with a memory."""

    def __init__(self, memory):
        self.memory = memory

    def store(self, content: str, user_id: str = "default_user") -> str:
        """Store information in memory."""
        try:
            self.memory.add(content, user_id=user_id)
            return f"Stored memory: {content}"
        except Exception as e:
            return f"Error storing memory: {e!s}"


def now() -> str:
    """Get the current time."""
    return datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")


class MemoryQA(dspy.Signature):
    """You're a helpful assistant and have access to memory tools."""

    user_input: str = dspy.InputField()
    response: str = dspy.OutputField()


class MemoryAgent(dspy.Module):
    def __init__(self, memory):
        super().__init__()
        self.memory_tools = MemoryTools(memory)
        self.tools = [self.memory_tools.store, now, self.remind]
        self.react = dspy.ReAct(signature=MemoryQA, tools=self.tools, max_iters=6)

    def forward(self, user_input: str):
        return self.react(user_input=user_input)

    def remind(self, content: str, when: str = "tomorrow") -> str:
        """Set a reminder."""
        return self.memory_tools.store(f"REMINDER {when}: {content}")
