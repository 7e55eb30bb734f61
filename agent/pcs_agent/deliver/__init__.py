"""Delivery: the courier takes records from the outbox to the backend, and settles each exactly once."""

from pcs_agent.deliver.batch_size import BatchSize
from pcs_agent.deliver.courier import Courier, Settlement
from pcs_agent.deliver.dispatch import Dispatcher
from pcs_agent.deliver.sender import Sender
from pcs_agent.deliver.transport import Answer, HttpTransport, Transport

__all__ = [
    "Answer",
    "BatchSize",
    "Courier",
    "Dispatcher",
    "HttpTransport",
    "Sender",
    "Settlement",
    "Transport",
]
