# run: Chat().turn("hi")
import dspy


class QA(dspy.Signature):
    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


class Chat:
    def __init__(self):
        self.predict = dspy.Predict(QA)
        self.messages = []

    def turn(self, question):
        outputs = self.predict(question=question, history=dspy.History(messages=self.messages))
        self.messages.append({"question": question, **outputs})
        return outputs.answer


def loop():
    chat = Chat()
    while True:
        question = input("> ")
        if question == "finish":
            break
        print(chat.turn(question))


if __name__ == "__main__":
    loop()
