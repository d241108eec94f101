# run: p(question="q", language="fr", context=[]).answer
import dspy


class Base(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class WithContext(Base):
    """Answer from the context."""

    context: list[str] = dspy.InputField(default=[])
    sources: list[int] = dspy.OutputField(default_factory=list)


class Translated(WithContext):
    language: str = dspy.InputField()


p = dspy.Predict(Translated)
