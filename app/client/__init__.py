"""The service from the caller's side. `wire` sends requests until they are answered; over it stand
`Client`, in JSON, and `task2vec` for programs, in types.
"""

from app.client.client import Client
from app.client.problems import ProblemAnswered, ServerUnreachable
from app.client.wire import Json

__all__ = ["Client", "Json", "ProblemAnswered", "ServerUnreachable"]
