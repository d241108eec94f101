# run: 1
import asyncio

import dspy

predict = dspy.Predict("question -> answer")
stream_predict = dspy.streamify(
    predict,
    stream_listeners=[dspy.streaming.StreamListener(signature_field_name="answer")],
)


async def read_output_stream():
    output_stream = stream_predict(question="Why did a chicken cross the kitchen?")
    async for chunk in output_stream:
        if isinstance(chunk, dspy.Prediction):
            print(chunk.answer)
        else:
            print(chunk)


if __name__ == "__main__":
    asyncio.run(read_output_stream())
