"""QHNet, compact (``network`` says what is QHNet's in it and what is not)."""

from model.architectures.declaration import declare
from model.architectures.qhnet.config import QHNetConfig
from model.architectures.qhnet.network import QHNet
from model.architectures.qhnet.tiny import TINY

DECLARATION = declare(QHNetConfig, QHNet, tiny=TINY, weightless=frozenset({"smooth_messages"}))
