# run: agent(user_request="x", history=None).process_result
import dspy


class AirlineAgent(dspy.Signature):
    """You are an airline customer service agent that helps users book and manage flights.

    You are given a list of tools to handle user requests.
    """

    user_request: str = dspy.InputField()
    history: dspy.History | None = dspy.InputField()
    process_result: str = dspy.OutputField(desc="Message that summarizes the process result.")


def fetch_flight_info(date: str, origin: str, destination: str):
    """Fetch flight information from origin to destination on the given date"""
    return [{"flight": "DA123", "date": date, "origin": origin, "destination": destination}]


def file_ticket(user_request: str, user: str) -> str:
    """File a customer support ticket if this is something the agent cannot handle."""
    return "6"


agent = dspy.ReAct(AirlineAgent, tools=[fetch_flight_info, file_ticket], max_iters=2)
