# run: metric(dspy.Example(question="q", answer="a"), dspy.Prediction(answer="a"))
import dspy


class Assess(dspy.Signature):
    """Assess the quality of a tweet along the specified dimension."""

    assessed_text = dspy.InputField()
    assessment_question = dspy.InputField()
    assessment_answer: bool = dspy.OutputField()


def metric(gold, pred, trace=None):
    question, answer = gold.question, gold.answer
    engaging = "Does the assessed text make for a self-contained, engaging tweet?"
    correct = f"The text should answer `{question}` with `{answer}`. Does the assessed text contain this answer?"
    correct = dspy.Predict(Assess)(assessed_text=pred.answer, assessment_question=correct)
    engaging = dspy.Predict(Assess)(assessed_text=pred.answer, assessment_question=engaging)
    correct, engaging = [m.assessment_answer for m in [correct, engaging]]
    score = (correct + engaging) if correct and (len(pred.answer) <= 280) else 0
    return score / 2.0
